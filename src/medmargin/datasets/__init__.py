"""Data set layouts to cases; splits, integrity check, repair, conversion, phantoms."""

from medmargin.datasets.case import Case
from medmargin.datasets.check import check_dataset
from medmargin.datasets.dataset import Dataset, open_dataset
from medmargin.datasets.faults import CheckReport, Fault
from medmargin.datasets.loading import load_case, load_image, load_label
from medmargin.datasets.task import Task

__all__ = [
    "Case",
    "CheckReport",
    "Dataset",
    "Fault",
    "Task",
    "check_dataset",
    "load_case",
    "load_image",
    "load_label",
    "open_dataset",
]
