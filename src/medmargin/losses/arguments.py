"""Numbers that a loss is built with, checked alike by all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from medmargin.errors import ConfigError


def check_range(numbers: Mapping[str, float], *, high: float) -> None:
    """Refuse a number below 0 or above `high`, and infinity.

    Raises:
        ConfigError: names the first one and what was expected.
    """
    for name, number in numbers.items():
        if not 0 <= number <= high or math.isinf(number):
            wanted = "0 or more" if high == math.inf else f"a number from 0 to {high:g}"
            raise ConfigError(f"{name} is {number}: expected {wanted}.")
