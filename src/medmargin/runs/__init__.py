"""Run folders: what was trained, how and on what, and the weights it ended with.

`learning` writes them, `inference` reads them. Importing this room imports no torch.
"""

from medmargin.runs.config import RunConfig, describe_environment
from medmargin.runs.ensemble import EnsembleRun, copy_run, open_run, write_ensemble
from medmargin.runs.folder import Run, RunPaths, read_run, write_run
from medmargin.runs.lock import run_lock
from medmargin.runs.model_card import write_model_card
from medmargin.runs.weights import read_weights, write_weights

__all__ = [
    "EnsembleRun",
    "Run",
    "RunConfig",
    "RunPaths",
    "copy_run",
    "describe_environment",
    "open_run",
    "read_run",
    "read_weights",
    "run_lock",
    "write_ensemble",
    "write_model_card",
    "write_run",
    "write_weights",
]
