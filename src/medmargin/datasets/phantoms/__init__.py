"""Generated images whose truth is known: random pictures to learn from, and the embedded default data set."""

from medmargin.datasets.phantoms.lessons import lesson
from medmargin.datasets.phantoms.pictures import random_picture
from medmargin.datasets.phantoms.writing import write_phantom_dataset

__all__ = ["lesson", "random_picture", "write_phantom_dataset"]
