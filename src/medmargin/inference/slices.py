"""From slice to slice: objects with a prompt in every slice, and objects followed from their middle slice.

Slice propagation is LiteMedSAM's: the middle slice is asked with the box as given; going up, then down, each next slice
is asked with the box of the previous slice's mask, enlarged by 3 network pixels, or with the original box where that
mask is empty. Every member of the uncertainty plan follows its own masks. Objects that share a frame share embeddings.
Baseline of the CVPR 2024 challenge "Segment Anything in Medical Images on Laptop"; Ma et al., arXiv:2412.16085.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import torch

from medmargin.inference.framing import FrameGroup
from medmargin.inference.scenes import Found, Scene, SceneSegmenter, Sought
from medmargin.inference.stack import PlacedBox
from medmargin.inference.targets import Cue, Target
from medmargin.networks.promptable import Embedding
from medmargin.prompts.propagation import next_box
from medmargin.transforms.frame import Frame, Rectangle

Step = Callable[[], None]


def segment_prompted_slices(segmenter: SceneSegmenter, targets: Sequence[Target], *, step: Step) -> None:
    """Segment objects in the slices that hold their prompts, several slices per encoder call.

    Args:
        step: called after each object of each slice.
    """
    by_slice = defaultdict(list)
    for target in targets:
        for index, cue in target.cues.items():
            by_slice[index].append((target, cue))
    scenes = [scene for index in sorted(by_slice) for scene in _scenes(segmenter, index, by_slice[index])]
    for start in range(0, len(scenes), segmenter.batch):
        batch = scenes[start : start + segmenter.batch]
        for _ in segmenter.segment(batch, segmenter.encode([(scene.index, scene.frame) for scene in batch])):
            step()


def segment_sweeps(segmenter: SceneSegmenter, targets: Sequence[Target], *, enlarge: int, step: Step) -> None:
    """Segment objects by slice propagation.

    Args:
        enlarge: free space around the previous mask, in network pixels.
        step: called after each object of each slice.
    """
    followed = [(target, target.sweep) for target in targets if target.sweep is not None]
    for frame, objects in _groups(segmenter, [target.extent for target, _ in followed]):
        tracks = [_Track(*followed[index], segmenter=segmenter, frame=frame, enlarge=enlarge) for index in objects]
        _sweep(segmenter, frame, tracks, step)


class _Track:
    """One object on its way through the slices.

    Attributes:
        boxes: each member's box for the next slice, [4] in network pixels.
    """

    def __init__(
        self, target: Target, sweep: PlacedBox, *, segmenter: SceneSegmenter, frame: Frame, enlarge: int
    ) -> None:
        self.target, self.sweep, self._enlarge = target, sweep, enlarge
        self.middle = int((sweep.last - sweep.first) / 2 + sweep.first)
        self._given = segmenter.framing.network_box(frame, sweep.rectangle)
        self.boxes = self.after_middle = [self._given] * len(segmenter.members)

    def sought(self, index: int) -> Sought:
        return Sought(self.target, self.target.cues.get(index, Cue()), self.boxes)

    def advance(self, found: Found, index: int) -> None:
        """Take the boxes of the next slice from the masks of slice `index`."""
        followed = [next_box(mask, found.frame, enlarge=self._enlarge) for mask in found.masks]
        self.boxes = [self._given if box is None else box for box in followed]
        if index == self.middle:
            self.after_middle = self.boxes

    def turn(self) -> None:
        """Start the way down from the middle slice's masks."""
        self.boxes = self.after_middle


def _sweep(segmenter: SceneSegmenter, frame: Frame, tracks: Sequence[_Track], step: Step) -> None:
    """Go up from the lowest middle slice, then down from the highest, with every object whose way leads there."""
    up = defaultdict(list)
    down = defaultdict(list)
    for track in tracks:
        for index in range(track.middle, track.sweep.last + 1):
            up[index].append(track)
        for index in range(track.middle - 1, track.sweep.first - 1, -1):
            down[index].append(track)
    route = [(index, up[index]) for index in sorted(up)]
    route += [(index, down[index]) for index in sorted(down, reverse=True)]
    embeddings = _Embeddings(segmenter, frame, [index for index, _ in route])
    for place, (index, passing) in enumerate(route):
        if place == len(up):
            for track in tracks:
                track.turn()
        scene = Scene(index, frame, [track.sought(index) for track in passing])
        for track, found in zip(passing, segmenter.segment([scene], embeddings.take(place)), strict=True):
            track.advance(found, index)
            step()


class _Embeddings:
    """Embeddings of the slices on a route, made several at a time and forgotten after their last use."""

    def __init__(self, segmenter: SceneSegmenter, frame: Frame, route: Sequence[int]) -> None:
        self._segmenter, self._frame, self._route = segmenter, frame, route
        self._uses = Counter(route)
        self._kept: dict[int, Embedding] = {}

    def take(self, place: int) -> Embedding:
        """Return the embedding of the slice at a place of the route."""
        index = self._route[place]
        if index not in self._kept:
            self._encode_ahead(place)
        self._uses[index] -= 1
        return self._kept[index] if self._uses[index] else self._kept.pop(index)

    def _encode_ahead(self, place: int) -> None:
        ahead = [index for index in dict.fromkeys(self._route[place:]) if index not in self._kept]
        ahead = ahead[: self._segmenter.batch]
        room = max(self._segmenter.network.batches.embeddings // len(self._segmenter.flips) - len(ahead), 0)
        while len(self._kept) > room:
            self._kept.pop(next(iter(self._kept)))
        embedding = self._segmenter.encode([(index, self._frame) for index in ahead])
        views = len(self._segmenter.flips)
        for position, index in enumerate(ahead):
            chosen = torch.arange(position * views, (position + 1) * views, device=embedding.features.device)
            self._kept[index] = embedding.select(chosen)


def _scenes(segmenter: SceneSegmenter, index: int, prompted: Sequence[tuple[Target, Cue]]) -> list[Scene]:
    """Put the objects of a slice into frames."""
    groups = _groups(segmenter, [cue.extent for _, cue in prompted])
    return [
        Scene(index, frame, [_sought(segmenter, frame, *prompted[chosen]) for chosen in objects])
        for frame, objects in groups
    ]


def _sought(segmenter: SceneSegmenter, frame: Frame, target: Target, cue: Cue) -> Sought:
    box = None if cue.box is None else segmenter.framing.network_box(frame, cue.box)
    return Sought(target, cue, [box] * len(segmenter.members))


def _groups(segmenter: SceneSegmenter, rectangles: Sequence[Rectangle | None]) -> list[FrameGroup]:
    _, height, width = segmenter.stack.shape
    return segmenter.framing.groups(rectangles, height=height, width=width, size=segmenter.network.size)
