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
from medmargin.inference.stack import SliceStack
from medmargin.transforms.frame import Frame
from medmargin.uncertainty.estimators import Pass


class SliceSegmenter:
    """Asks for slices and averages the passes.

    Args:
        networks: in eval mode. plan: the passes.
        canvas: takes the volumes of every pass. batch: slices per call.
    """

    def __init__(
        self, networks: Sequence[ClassNetwork], plan: Sequence[Pass], *, canvas: ClassCanvas, batch: int
    ) -> None:
        self.networks, self.plan, self.canvas, self.batch = networks, plan, canvas, batch

    def segment(self, stack: SliceStack, asks: Sequence[Ask], plane: int) -> Iterator[tuple[int, ClassMaps]]:
        """Answer all slices of a cut, those asked alike in common batches.

        Args:
            asks: one per slice. plane: number of the cut; its passes are the members plane * P to plane * P + P - 1.

        Yields:
            Slices and the mean of their passes, not in order.
        """
        _, height, width = stack.shape
        frame = Frame.whole(height, width, self.networks[0].image_size)
        for together in _batches(asks, self.batch):
            images = [frame.image(stack.picture(ask.image)) for ask in together]
            moments = [ClassMoments(self.networks[0].evidence, len(self.plan)) for _ in together]
            for member, how in enumerate(self.plan, start=plane * len(self.plan)):
                found = answers(self.networks[how.network], images, together, how, frame)
                for moment, logits in zip(moments, found, strict=True):
                    self.canvas.sample(member, moment.add(*_on_slice(logits, frame, height, width)))
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
