"""Plans: what a data set's fingerprint says about spacing, patch, batch, network and normalisation, with reasons."""

from medmargin.datasets.planning.fingerprint import Fingerprint, measure_fingerprint, planning_cases
from medmargin.datasets.planning.memory import require_memory
from medmargin.datasets.planning.normalisation import Normalisation
from medmargin.datasets.planning.overrides import Overrides, read_overrides
from medmargin.datasets.planning.plan import Configuration, Plan, Resampling
from medmargin.datasets.planning.planner import make_plan
from medmargin.datasets.planning.scale import LAPTOP, PAPER, Scale, scale_named
from medmargin.datasets.planning.unet import UNetShape

__all__ = [
    "LAPTOP",
    "PAPER",
    "Configuration",
    "Fingerprint",
    "Normalisation",
    "Overrides",
    "Plan",
    "Resampling",
    "Scale",
    "UNetShape",
    "make_plan",
    "measure_fingerprint",
    "planning_cases",
    "read_overrides",
    "require_memory",
    "scale_named",
]
