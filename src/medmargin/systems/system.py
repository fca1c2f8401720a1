"""`System`: a network, the stages in which it learns, and the predictor that answers with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class System:
    """What a system file returns.

    Learners and predictors are made on demand, so that predicting does not import the training engine and training
    does not read an image.

    Attributes:
        network: built with the system's sizes and its starting weights.
        stages: learning stages in order; each call returns a `learning.Stage` for this network.
        predictor: makes the predictor that wraps the network.
        init: where the starting weights came from: "none", "shipped" or a file.
    """

    network: nn.Module
    stages: tuple[Callable[[], Any], ...]
    predictor: Callable[[], Any]
    init: str = "none"
