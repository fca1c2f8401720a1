"""`SliceSegmenter`: the slices of a cut, asked for batch by batch and pass by pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medmargin.inference.class_canvas import ClassCanvas
from medmargin.inference.class_maps import ClassMaps, ClassMoments
from medmargin.inference.class_network import ClassLogits, ClassNetwork, answers
from medmargin.inference.network import Ask
from medmargin.inference.recalibration import SliceRescaling
from medmargin.inference.stack import SliceStack
from medmargin.transforms.frame import Frame
from medmargin.uncertainty.calibration import Calibration
from medmargin.uncertainty.estimators import Pass


class SliceSegmenter:
    """Asks for slices and averages the passes.

    Args:
        networks: in eval mode. plan: the passes.
        canvas: takes the volumes of every pass. batch: slices per call.
        calibration: rescales the passes whose volumes are taken, or None.
    """

    def __init__(
        self,
        networks: Sequence[ClassNetwork],
        plan: Sequence[Pass],
        *,
        canvas: ClassCanvas,
        batch: int,
        calibration: Calibration | None = None,
    ) -> None:
        self.networks, self.plan, self.canvas, self.batch = networks, plan, canvas, batch
        self.calibration = calibration

    def segment(self, stack: SliceStack, asks: Sequence[Ask], plane: int) -> Iterator[tuple[int, ClassMaps]]:
        """Answer all slices of a cut, those asked alike in common batches.

        Args:
            asks: one per slice. plane: number of the cut; its passes are the members plane * P to plane * P + P - 1.

        Yields:
            Slices and the mean of their passes, not in order and not rescaled.
        """
        rescaling = None if self.calibration is None else SliceRescaling(self.calibration, stack)
        _, height, width = stack.shape
        frame = Frame.whole(height, width, self.networks[0].image_size)
        for together in _batches(asks, self.batch):
            images = [frame.image(stack.picture(ask.image)) for ask in together]
            moments = [ClassMoments(self.networks[0].evidence, len(self.plan)) for _ in together]
            for member, how in enumerate(self.plan, start=plane * len(self.plan)):
                found = answers(self.networks[how.network], images, together, how, frame)
                for ask, moment, logits in zip(together, moments, found, strict=True):
                    answer = moment.add(*_on_slice(logits, frame, height, width))
                    if rescaling is not None:
                        answer = rescaling.probabilities(ask.image, answer, moment.vacuity)
                    self.canvas.sample(member, answer)
            for ask, moment in zip(together, moments, strict=True):
                yield ask.image, moment.maps()


def _batches(asks: Sequence[Ask], most: int) -> Iterator[list[Ask]]:
    kinds: dict[tuple[bool, int, bool], list[Ask]] = defaultdict(list)
    for ask in asks:
        kinds[ask.kind].append(ask)
    for alike in kinds.values():
        for start in range(0, len(alike), most):
            yield alike[start : start + most]


def _on_slice(
    logits: ClassLogits, frame: Frame, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Bring logits to the slice's own grid: [K, height, width], and [2, height, width] or None."""

    def restored(maps: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([frame.restore(values, height, width, fill=0.0) for values in maps])

    return restored(logits.classes), None if logits.edges is None else restored(logits.edges)
