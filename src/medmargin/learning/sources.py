"""Where training pictures come from: a source draws one picture and the mask of one object, or a whole label slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.phantoms import lesson
from medmargin.errors import ConfigError

Drawn = tuple[NDArray, NDArray[np.bool_]]
Planes = Literal["axial", "three"]


class Source(Protocol):
    """Pictures with outlined objects, without end."""

    @property
    def objects(self) -> int | None:
        """Number of different objects, or None where there is no end of them."""
        ...

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw an object as a pure function of `rng`.

        Returns:
            picture [H, W] or [H, W, 3] of any numeric dtype, and the object's mask [H, W], not empty.
        """
        ...


class SliceSource(Protocol):
    """Slices with every structure outlined, without end."""

    @property
    def objects(self) -> int | None:
        """Number of different objects, or None where there is no end of them."""
        ...

    def draw_slice(self, rng: np.random.Generator, *, empty_share: float, planes: Planes) -> tuple[NDArray, NDArray]:
        """Draw a slice as a pure function of `rng`.

        Args:
            empty_share: probability of a slice drawn without looking at what it shows.
            planes: "axial" cuts volumes along one axis, "three" along all three, equally often.

        Returns:
            picture [H, W] or [H, W, 3] of any numeric dtype, and class indices [H, W], 0 for background.
        """
        ...


@dataclass(frozen=True)
class GeneratedPictures:
    """Generated pictures; no patient's image is needed (`datasets.phantoms`).

    Attributes:
        generate: draws a picture and the mask of one object in it, as a pure function of the generator.
    """

    generate: Callable[[np.random.Generator], Drawn] = lesson

    @property
    def objects(self) -> None:
        return None

    def draw(self, rng: np.random.Generator) -> Drawn:
        return self.generate(rng)

    def draw_slice(self, rng: np.random.Generator, *, empty_share: float, planes: Planes) -> tuple[NDArray, NDArray]:
        """Draw a picture with its object as class 1; every picture shows one and has one plane."""
        picture, mask = self.generate(rng)
        return picture, mask.astype(np.uint8)


@dataclass(frozen=True)
class Mixture:
    """Several sources, each drawn from in proportion to its weight.

    Attributes:
        sources: at least one.
        weights: one positive number per source.

    Raises:
        ConfigError: no source, or weights that do not fit.
    """

    sources: Sequence[Source]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.weights) or min(self.weights) <= 0:
            raise ConfigError(
                f"a mixture of {len(self.sources)} sources has weights {list(self.weights)}: "
                "expected one positive weight per source."
            )

    @property
    def objects(self) -> int | None:
        counts = [source.objects for source in self.sources]
        return sum(count for count in counts if count is not None) if None not in counts else None

    def draw(self, rng: np.random.Generator) -> Drawn:
        shares = np.asarray(self.weights, float) / sum(self.weights)
        return self.sources[int(rng.choice(len(self.sources), p=shares))].draw(rng)
