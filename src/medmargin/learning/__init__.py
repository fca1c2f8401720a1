"""Learning with Lightning: streams of batches, learners, and the one place that runs them (`fit`)."""

from medmargin.errors import MissingExtraError

try:
    from medmargin.learning.batches import FixedItems, Stream
    from medmargin.learning.budget import Budget
    from medmargin.learning.cached_volumes import CachedVolumes
    from medmargin.learning.case_cache import CachedCases, cache_cases
    from medmargin.learning.distillation import DistillationLearner, DistillationPictures
    from medmargin.learning.engine import is_first_process, require_devices, wants_gpu
    from medmargin.learning.labelled_patches import LabelledPatches, PatchBatch
    from medmargin.learning.labelled_slices import LabelledSlices, SegmentationBatch
    from medmargin.learning.learner import Learner, Optimisation
    from medmargin.learning.prompted import PromptedLearner
    from medmargin.learning.prompted_stream import PromptedSlices, Prompting
    from medmargin.learning.segmentation import SegmentationLearner
    from medmargin.learning.sources import GeneratedPictures, Mixture, SliceSource, Source
    from medmargin.learning.step_memory import step_bytes
    from medmargin.learning.training import TrainingOutcome, fit
    from medmargin.learning.volume_cache import cache_volumes
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("lightning", "blosc2"):
        raise
    raise MissingExtraError(missing, "train", "training") from error

__all__ = [
    "Budget",
    "CachedCases",
    "CachedVolumes",
    "DistillationLearner",
    "DistillationPictures",
    "FixedItems",
    "GeneratedPictures",
    "LabelledPatches",
    "LabelledSlices",
    "Learner",
    "Mixture",
    "Optimisation",
    "PatchBatch",
    "PromptedLearner",
    "PromptedSlices",
    "Prompting",
    "SegmentationBatch",
    "SegmentationLearner",
    "SliceSource",
    "Source",
    "Stream",
    "TrainingOutcome",
    "cache_cases",
    "cache_volumes",
    "fit",
    "is_first_process",
    "require_devices",
    "step_bytes",
    "wants_gpu",
]
