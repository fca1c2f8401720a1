"""`System`: a network, the stages in which it learns, and the predictor that answers with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medmargin.inference import AutomaticPredictor, PromptedPredictor, VolumePredictor
    from medmargin.learning.batches import Stream
    from medmargin.learning.engine import Precision
    from medmargin.learning.learner import Learner

    Predictor = PromptedPredictor | AutomaticPredictor | VolumePredictor


@dataclass(frozen=True)
class Stage:
    """One stretch of learning.

    Attributes:
        name: as in the catalogue.
        learner: what is trained.
        stream: (source of pictures, seed=...) -> the training stream.
        batch_size: items per step. epochs: its length when no budget is given. precision: of the arithmetic, in
            Lightning's words.
        cases: what the stream draws from: "slices" (`learning.CachedCases`), or "volumes" prepared as the task's plan
            says (`learning.CachedVolumes`).
        keep: the weights that are left, those of the last step or those with the best validation score.
        validation_items: of the validation stream, looked at now and then.
        step_bytes: that a training step is expected to hold on the device it runs on; None: not estimated.
    """

    name: str
    learner: Learner
    stream: Callable[..., Stream]
    batch_size: int
    epochs: int
    precision: Precision
    cases: Literal["slices", "volumes"] = "slices"
    keep: Literal["best", "last"] = "best"
    validation_items: int = 128
    step_bytes: int | None = None


@dataclass(frozen=True)
class System:
    """What a system file returns.

    Learners and predictors are made on demand, so that predicting does not import the training engine and training
    does not read an image.

    Attributes:
        network: built with the system's sizes and its starting weights.
        stages: make the learning stages, in order, for this network.
        predictor: makes the predictor that wraps the network.
        init: where the starting weights came from: "none", "shipped" or a file.
        adapter: what training changed of a base network: name -> tensor, for a small file of its own.
    """

    network: nn.Module
    stages: tuple[Callable[[], Stage], ...]
    predictor: Callable[[], Predictor]
    init: str = "none"
    adapter: Callable[[], dict[str, Tensor]] | None = None

    def described(self) -> dict[str, Any]:
        """Say what was built, for the run's description."""
        return {"init": self.init, "weights": sum(parameter.numel() for parameter in self.network.parameters())}
