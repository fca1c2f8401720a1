"""`SceneSegmenter`: objects in one view of one slice, asked for by every member of the uncertainty plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from medmargin.inference.canvas import Canvas, Region
from medmargin.inference.framing import Framing
from medmargin.inference.mirrors import mirror_box, mirror_map, mirror_points
from medmargin.inference.network import Ask, BatchedNetwork
from medmargin.inference.recalibration import ObjectRescaling
from medmargin.inference.stack import SliceStack
from medmargin.inference.targets import Cue, Target
from medmargin.networks.promptable import Embedding
from medmargin.transforms.frame import Frame
from medmargin.uncertainty.moments import RunningMoments
from medmargin.uncertainty.prompt_perturbation import Flip, Member


@dataclass(frozen=True)
class Sought:
    """An object in a scene.

    Attributes:
        target: the object.
        cue: what is said about it in this slice.
        boxes: the box each member starts from, [4] in network pixels, or None without a box.
    """

    target: Target
    cue: Cue
    boxes: Sequence[NDArray[np.float32] | None]


@dataclass(frozen=True)
class Scene:
    """A slice seen through a frame, and what is sought there."""

    index: int
    frame: Frame
    sought: Sequence[Sought]


@dataclass(frozen=True)
class Found:
    """Masks [rows, columns] of a sought object, one per member, in the part of the slice that its frame shows.

    Attributes:
        frame: the scene's frame in coordinates of that part.
    """

    target: Target
    masks: list[NDArray[np.bool_]]
    frame: Frame


class SceneSegmenter:
    """Encodes scenes, asks the network for their objects and draws the mean of the answers.

    Args:
        network: what to ask. members: how to ask, one entry per answer.
        framing: policy of the frames. stack: the image. canvas: takes the answers.
        rescaling: of a calibrated run. Slices are followed by the masks as the network gives them, so that the same
            prompts are asked with and without it.
    """

    def __init__(
        self,
        network: BatchedNetwork,
        members: Sequence[Member],
        *,
        framing: Framing,
        stack: SliceStack,
        canvas: Canvas,
        rescaling: ObjectRescaling | None = None,
    ) -> None:
        self.network, self.members, self.rescaling = network, members, rescaling
        self.framing, self.stack, self.canvas = framing, stack, canvas
        self.flips: list[Flip] = list(dict.fromkeys(member.flip for member in members))

    @property
    def batch(self) -> int:
        """Scenes per encoder call."""
        return max(self.network.batches.images // len(self.flips), 1)

    def encode(self, views: Sequence[tuple[int, Frame]]) -> Embedding:
        """Encode slices seen through frames; view v seen in mirror f is image v * len(flips) + f."""
        images = []
        for index, frame in views:
            image = frame.image(self.stack.picture(index))
            images += [mirror_map(image, flip, frame.resized) for flip in self.flips]
        return self.network.encode(images)

    def segment(self, scenes: Sequence[Scene], embedding: Embedding) -> Iterator[Found]:
        """Segment the objects of scenes, in order; `embedding` is that of their views."""
        asks = [
            self._ask(sought, scene.frame, member, index, self.flips.index(member.flip) + position * len(self.flips))
            for position, scene in enumerate(scenes)
            for sought in scene.sought
            for index, member in enumerate(self.members)
        ]
        answers = self.network.decode(embedding, asks)
        for scene in scenes:
            region, frame = self._visible(scene)
            for sought in scene.sought:
                masks = self._draw(sought.target.structure, region, frame, answers)
                yield Found(sought.target, masks, frame)

    def _ask(self, sought: Sought, frame: Frame, member: Member, index: int, image: int) -> Ask:
        height, width = frame.resized
        box, cue = sought.boxes[index], sought.cue
        if box is not None:
            box = mirror_box(member.box(box, width=width, height=height), member.flip, frame.resized)
        points = member.points(self.framing.network_points(frame, cue.points), size=frame.size)
        mask = None if cue.mask is None else mirror_map(frame.mask(cue.mask), member.flip, frame.resized)
        return Ask(image, box, mirror_points(points, member.flip, frame.resized), cue.positive, mask)

    def _visible(self, scene: Scene) -> tuple[Region, Frame]:
        """Compute the part of the slice that the frame shows, and the frame in coordinates of that part."""
        _, height, width = self.stack.shape
        frame = scene.frame
        top, left = max(frame.y, 0), max(frame.x, 0)
        bottom, right = min(frame.y + frame.height, height), min(frame.x + frame.width, width)
        region = Region(scene.index, slice(top, bottom), slice(left, right))
        return region, replace(frame, x=frame.x - left, y=frame.y - top)

    def _draw(
        self, structure: int, region: Region, frame: Frame, answers: Iterator[NDArray[np.float32]]
    ) -> list[NDArray[np.bool_]]:
        """Average one object's answers, one at a time; returns each member's mask."""
        height, width = region.rows.stop - region.rows.start, region.columns.stop - region.columns.start
        moments, masks = RunningMoments(), []
        for index, member in enumerate(self.members):
            logits = mirror_map(next(answers), member.flip, frame.resized)
            probabilities = expit(frame.restore(logits, height, width, fill=0.0))
            moments.add(probabilities)
            masks.append(probabilities > 0.5)
            if self.rescaling is not None:
                probabilities = self.rescaling.probabilities(structure, probabilities)
            self.canvas.samples.add(structure, index, probabilities)
        mean, parts = moments.probabilities, moments.decomposition()
        if self.rescaling is not None:
            mean = self.rescaling.probabilities(structure, mean)
            parts = self.rescaling.parts(mean, parts)
        self.canvas.draw(structure, region, mean, parts)
        return masks
