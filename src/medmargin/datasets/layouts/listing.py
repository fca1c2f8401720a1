"""`Listing`: what every layout reader answers with."""

from __future__ import annotations

from dataclasses import dataclass

from medmargin.datasets.case import Case
from medmargin.datasets.faults import Fault
from medmargin.datasets.splits import Splits
from medmargin.datasets.task import Task


@dataclass(frozen=True)
class Listing:
    """A data set as its layout describes it; no voxel has been read.

    Attributes:
        task: name, channels and structures.
        cases: training images, with or without label.
        test_cases: images set apart for testing.
        splits: the split the layout itself states, or None.
        faults: files that do not fit the layout.
    """

    task: Task
    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...] = ()
    splits: Splits | None = None
    faults: tuple[Fault, ...] = ()
