"""Predictors: from an image and prompts to a segmentation on the image's own grid."""

from medmargin.inference.automatic import AutomaticPredictor
from medmargin.inference.batch import BatchResult, CaseResult, Failure, Job, Predictor, case_name, predict_cases
from medmargin.inference.budget import parse_memory
from medmargin.inference.framing import Framing
from medmargin.inference.postprocessing import Rule
from medmargin.inference.prompted import PromptedPredictor
from medmargin.inference.segmentation import (
    NO_PROMPTS,
    PROMPTS_FROM_LABELS,
    PROMPTS_FROM_USER,
    Segmentation,
    StructureResult,
)
from medmargin.inference.volumes import VolumePredictor

__all__ = [
    "NO_PROMPTS",
    "PROMPTS_FROM_LABELS",
    "PROMPTS_FROM_USER",
    "AutomaticPredictor",
    "BatchResult",
    "CaseResult",
    "Failure",
    "Framing",
    "Job",
    "Predictor",
    "PromptedPredictor",
    "Rule",
    "Segmentation",
    "StructureResult",
    "VolumePredictor",
    "case_name",
    "parse_memory",
    "predict_cases",
]
