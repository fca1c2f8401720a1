"""Medical image segmentation that knows its margin of error."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
# Importing the package must stay cheap and free of torch; these names load their room when first used.
_LAZY = {
    "train": "medmargin.workflows.train",
    "load": "medmargin.workflows.model",
}
__all__ = ["__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'medmargin' has no attribute '{name}'")
