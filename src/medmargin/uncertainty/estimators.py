"""Ways to ask a network that needs no prompt, so that its answers tell how sure they are.

Evidence: Sensoy et al. 2018, arXiv:1806.01768. Test-time augmentation: Wang et al. 2019, arXiv:1807.07356. Dropout: Gal
and Ghahramani 2016, arXiv:1506.02142. Deep ensembles: Lakshminarayanan et al. 2017, arXiv:1612.01474. Snapshots: Huang
et al. 2017, arXiv:1704.00109.

An estimator is a plan; `inference.automatic` and `inference.volumes` carry it out and average the passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar, Literal, Protocol, get_args

import numpy as np

from medmargin.errors import ConfigError

Mirror = Literal["none", "horizontal", "vertical", "both"]
MIRRORS: tuple[Mirror, ...] = get_args(Mirror)


@dataclass(frozen=True)
class Pass:
    """One way to ask.

    Attributes:
        network: which of the networks.
        flip: mirror of the picture. axes: spatial axes of a volume to mirror, 0 first in network order.
        sampling: whether dropout is active; seed: of its draws.
    """

    network: int = 0
    flip: Mirror = "none"
    sampling: bool = False
    seed: int = 0
    axes: tuple[int, ...] = ()


class Estimator(Protocol):
    """What a predictor needs to know of an estimator."""

    @property
    def name(self) -> str:
        """Say in reports what the uncertainty was computed from."""
        ...

    @property
    def members(self) -> int:
        """Number of passes."""
        ...

    def plan(self) -> tuple[Pass, ...]:
        """Return the passes, the same ones for every image."""
        ...


@dataclass(frozen=True)
class Evidential:
    """One pass of a network that gives evidence; its Dirichlet splits the uncertainty (`dirichlet`)."""

    name: ClassVar[str] = "evidential"
    members: ClassVar[int] = 1

    def plan(self) -> tuple[Pass, ...]:
        """Ask once."""
        return (Pass(),)


@dataclass(frozen=True)
class Softmax:
    """One pass of a network without evidence; the entropy of its answer cannot be split."""

    name: ClassVar[str] = "softmax entropy"
    members: ClassVar[int] = 1

    def plan(self) -> tuple[Pass, ...]:
        """Ask once."""
        return (Pass(),)


@dataclass(frozen=True)
class TestTimeAugmentation:
    """The picture and its mirrors.

    Args:
        flips: the mirrors, each once.

    Raises:
        ConfigError: fewer than two, one twice, or an unknown one.
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for tests

    flips: tuple[Mirror, ...] = MIRRORS

    name: ClassVar[str] = "test-time augmentation"

    def __post_init__(self) -> None:
        if len(self.flips) < 2 or len(set(self.flips)) < len(self.flips) or not set(self.flips) <= set(MIRRORS):
            raise ConfigError(f"flips {self.flips}: expected two or more different ones of {', '.join(MIRRORS)}")

    @property
    def members(self) -> int:
        """Number of passes."""
        return len(self.flips)

    def plan(self) -> tuple[Pass, ...]:
        """Ask once per mirror."""
        return tuple(Pass(flip=flip) for flip in self.flips)


@dataclass(frozen=True)
class VolumeMirrors:
    """The volume and its mirrors along every combination of axes: 2^n passes for n axes.

    Args:
        axes: spatial axes of the network, 0 first in network order: (0, 1, 2) of a volume, (0, 1) of its slices.

    Raises:
        ConfigError: no axis, one twice, or one that no network has.
    """

    axes: tuple[int, ...] = (0, 1, 2)

    name: ClassVar[str] = "test-time augmentation"

    def __post_init__(self) -> None:
        if not self.axes or len(set(self.axes)) < len(self.axes) or not set(self.axes) <= {0, 1, 2}:
            raise ConfigError(f"axes {self.axes}: expected one or more different ones of 0, 1, 2")

    @property
    def members(self) -> int:
        """Number of passes."""
        return 2 ** len(self.axes)

    def plan(self) -> tuple[Pass, ...]:
        """Ask once per combination, none first."""
        counts = range(len(self.axes) + 1)
        return tuple(Pass(axes=chosen) for count in counts for chosen in combinations(self.axes, count))


@dataclass(frozen=True)
class MonteCarloDropout:
    """Passes with dropout left on; each pass draws one thinned network and shows it every slice.

    Args:
        members: number of passes. seed: of all draws.

    Raises:
        ConfigError: fewer than two members.
    """

    members: int = 10
    seed: int = 0

    name: ClassVar[str] = "Monte Carlo dropout"

    def __post_init__(self) -> None:
        _refuse_too_few(self.name, self.members)

    def plan(self) -> tuple[Pass, ...]:
        """Ask `members` times, each with a seed of its own."""
        seeds = np.random.SeedSequence(self.seed).generate_state(self.members)
        return tuple(Pass(sampling=True, seed=int(seed)) for seed in seeds)


@dataclass(frozen=True)
class Ensemble:
    """Several networks, trained from different random numbers.

    Args:
        networks: their number.
        axes: each network answers the volume's mirrors along every combination of these axes too, as `VolumeMirrors`;
            none: each answers once.

    Raises:
        ConfigError: fewer than two networks, or axes that `VolumeMirrors` refuses.
    """

    networks: int
    axes: tuple[int, ...] = ()

    name: ClassVar[str] = "deep ensemble"

    def __post_init__(self) -> None:
        _refuse_too_few(self.name, self.networks)
        self._mirrors()

    @property
    def members(self) -> int:
        """Number of passes."""
        return self.networks * len(self._mirrors())

    def plan(self) -> tuple[Pass, ...]:
        """Ask one network after the other."""
        return tuple(replace(one, network=index) for index in range(self.networks) for one in self._mirrors())

    def _mirrors(self) -> tuple[Pass, ...]:
        return VolumeMirrors(self.axes).plan() if self.axes else (Pass(),)


@dataclass(frozen=True)
class Snapshots(Ensemble):
    """Several states that one training went through."""

    name: ClassVar[str] = "snapshot ensemble"


def _refuse_too_few(name: str, members: int) -> None:
    if members < 2:
        raise ConfigError(f"{name} with {members} members has nothing to compare: give 2 or more")
