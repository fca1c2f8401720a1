"""The user's choices in place of the rules', read from text and checked. For example:

spacing=3,1,1   axis_order=2,1,0   normalisation=ct,zscore   within_mask=true   crop=false   resampling=whole
configuration=3d_lowres   patch=64,96,96   batch_size=2   base_features=24   most_features=256   most_stages=5
strides=1,1,1/1,2,2/2,2,2   kernels=1,3,3/3,3,3/3,3,3   features=32,64,128   precision=float32
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from medmargin.datasets.planning.memory import PRECISIONS
from medmargin.datasets.planning.normalisation import SCHEMES
from medmargin.errors import ConfigError

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade")
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Overrides:
    """What was asked for; None: the rule decides. Tuples run along the axes in network order, (D, H, W) or (H, W).

    `patch`, `batch_size`, `strides`, `kernels` and `features` change the chosen configuration, the others every one.
    """

    spacing: tuple[float, ...] | None = None
    axis_order: Numbers | None = None
    normalisation: tuple[str, ...] | None = None
    within_mask: bool | None = None
    crop: bool | None = None
    resampling: str | None = None
    precision: str | None = None
    configuration: str | None = None
    base_features: int | None = None
    most_features: int | None = None
    most_stages: int | None = None
    patch: Numbers | None = None
    batch_size: int | None = None
    strides: tuple[Numbers, ...] | None = None
    kernels: tuple[Numbers, ...] | None = None
    features: Numbers | None = None


def read_overrides(settings: Mapping[str, Any]) -> Overrides:
    """Read choices by name.

    Args:
        settings: name -> text such as "64,96,96", or the value itself.

    Raises:
        ConfigError: an unknown name (the nearest are given), or a value of the wrong form or out of range.
    """
    names = [field.name for field in fields(Overrides)]
    for name in settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
            raise ConfigError(f"a plan has no choice '{name}'; nearest: {', '.join(near)}")
    return Overrides(**{name: _read(name, value) for name, value in settings.items()})


def _read(name: str, value: Any) -> Any:
    reader, expected = _READERS[name]
    try:
        return reader(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{name}={value}: expected {expected}") from error


def _numbers(value: Any, kind: Callable[[Any], Any] = int) -> tuple[Any, ...]:
    parts = value.replace("x", ",").split(",") if isinstance(value, str) else value
    numbers = tuple(kind(part) for part in parts)
    if not numbers or min(numbers) <= 0:
        raise ValueError
    return numbers


def _positive(value: Any) -> int:
    (number,) = _numbers([value])
    return int(number)


def _per_stage(value: Any) -> tuple[Numbers, ...]:
    return tuple(_numbers(part) for part in (value.split("/") if isinstance(value, str) else value))


def _axes(value: Any) -> Numbers:
    axes = tuple(int(part) for part in (value.split(",") if isinstance(value, str) else value))
    if sorted(axes) != [0, 1, 2]:
        raise ValueError
    return axes


def _truth(value: Any) -> bool:
    text = str(value).casefold()
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _one_of(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return read


def _schemes(value: Any) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)
    return tuple(_one_of(SCHEMES)(part) for part in parts)


_SIDES = "whole numbers above 0, one per axis, such as 64,96,96"
_STAGES = "whole numbers per axis and stage, such as 1,1,1/2,2,2"
_READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "spacing": (lambda value: _numbers(value, float), "numbers above 0, one per axis, such as 3,1,1"),
    "axis_order": (_axes, "the numbers 0, 1 and 2 (the axes R, A and S) in the order (D, H, W), such as 2,1,0"),
    "normalisation": (_schemes, f"{', '.join(SCHEMES)}: one for all channels, or one per channel with commas"),
    "within_mask": (_truth, "true or false"),
    "crop": (_truth, "true or false"),
    "resampling": (_one_of(("whole", "slicewise")), "whole or slicewise"),
    "precision": (_one_of(PRECISIONS), " or ".join(PRECISIONS)),
    "configuration": (_one_of(CONFIGURATIONS), ", ".join(CONFIGURATIONS)),
    "base_features": (_positive, "a whole number above 0"),
    "most_features": (_positive, "a whole number above 0"),
    "most_stages": (_positive, "a whole number above 0"),
    "patch": (_numbers, _SIDES),
    "batch_size": (_positive, "a whole number above 0"),
    "strides": (_per_stage, _STAGES),
    "kernels": (_per_stage, _STAGES),
    "features": (_numbers, "whole numbers above 0, one per stage, such as 32,64,128"),
}
