"""Uncertainty of a promptable model: ask again with slightly different prompts, and in the mirror.

Nobody draws the same box twice, and no organ changes when its picture is mirrored. The members of this plan redraw the
prompt a little larger or smaller and flip the picture; where their masks disagree, the model does not know. Moved boxes
share the embedding of their picture, each flip costs one more.
Related: Wang et al. 2019, arXiv:1807.07356 (test-time augmentation); Deng et al. 2023, arXiv:2307.04973 (many boxes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError

Flip = Literal["none", "horizontal", "vertical"]


@dataclass(frozen=True)
class Member:
    """One way to ask.

    Attributes:
        flip: mirror of the picture.
        growth: how far the left, top, right and bottom side of a box move outward (negative: inward), as a fraction of
            the box's width (left, right) or height (top, bottom).
        shift: (x, y) displacement of points, as a fraction of the network input's side.
    """

    flip: Flip = "none"
    growth: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)

    def box(self, box: NDArray[np.float32], *, width: int, height: int) -> NDArray[np.float32]:
        """Redraw a box.

        Args:
            box: [4] (x_min, y_min, x_max, y_max) in network pixels.
            width, height: of the picture inside the network input; a moved side stays within it.

        Returns:
            [4]; `box` itself where this member does not move its sides.
        """
        if not any(self.growth):
            return box
        sides = np.array([box[2] - box[0], box[3] - box[1]] * 2, np.float32) + 1
        moved = box + np.array([-1, -1, 1, 1], np.float32) * np.asarray(self.growth, np.float32) * sides
        moved = moved.clip(0, np.array([width - 1, height - 1] * 2, np.float32))
        return np.concatenate([np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])])

    def points(self, points: NDArray[np.float32], *, size: int) -> NDArray[np.float32]:
        """Move points [P, 2] in pixels of a `size` x `size` network input."""
        return points + np.asarray(self.shift, np.float32) * size


@dataclass(frozen=True)
class PromptPerturbation:
    """Plan of the members; the same seed gives the same plan for every image.

    Args:
        members: number of answers; member 0 is the prompt exactly as given.
        flips: mirrors the members take turns with; the first must be "none".
        outward, inward: largest move of a box side, as a fraction of the box's width or height.
        point_shift: largest move of a point, as a fraction of the network input's side.
        seed: of the moves.

    Raises:
        ConfigError: a value out of range.
    """

    members: int = 8
    flips: tuple[Flip, ...] = ("none", "horizontal")
    outward: float = 0.1
    inward: float = 0.05
    point_shift: float = 0.02
    seed: int = 0

    name = "prompt perturbation"

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ConfigError(f"prompt perturbation with {self.members} members has nothing to compare: give 2 or more")
        if not self.flips or self.flips[0] != "none" or not set(self.flips) <= set(get_args(Flip)):
            raise ConfigError(f"flips {self.flips}: expected 'none' first, then any of {get_args(Flip)[1:]}")
        for field, value in (("outward", self.outward), ("inward", self.inward), ("point_shift", self.point_shift)):
            if not 0 <= value < 0.5:
                raise ConfigError(f"{field}={value}: expected a fraction of at least 0 and below 0.5")

    def plan(self) -> tuple[Member, ...]:
        """Draw the members; the first of each flip keeps the prompt as given."""
        rng = np.random.default_rng(self.seed)
        plan = []
        for index in range(self.members):
            growth = rng.uniform(-self.inward, self.outward, 4).tolist()
            shift = rng.uniform(-self.point_shift, self.point_shift, 2).tolist()
            flip = self.flips[index % len(self.flips)]
            as_given = index < len(self.flips)
            plan.append(Member(flip) if as_given else Member(flip, tuple(growth), tuple(shift)))
        return tuple(plan)
