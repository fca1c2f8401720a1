"""How a recomputed output is compared with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class OutputComparison:
    """One output of a reference, recomputed here.

    Attributes:
        name: of the output in the file.
        max_abs: largest absolute difference, or None where the two cannot be subtracted (see `reason`).
        max_rel: `max_abs` over the largest magnitude in the reference, or None where that is 0 and `max_abs` is not.
        tolerance: what was allowed.
        passed: within the tolerance.
        reason: why it did not pass; empty when it passed.
    """

    name: str
    max_abs: float | None
    max_rel: float | None
    tolerance: float
    passed: bool
    reason: str = ""


def compare(name: str, recomputed: Tensor | NDArray[Any], reference: Tensor, tolerance: float) -> OutputComparison:
    """Compare one output.

    The rule: shapes are equal; integers and booleans are equal; floating-point values differ by at most
    tolerance * max(1, largest magnitude in the reference), and NaN and infinities stand at the same places.
    """
    found, expected = _as_array(recomputed), _as_array(reference)
    if found.shape != expected.shape:
        reason = f"shape {list(found.shape)} instead of {list(expected.shape)}"
        return OutputComparison(name, None, None, tolerance, passed=False, reason=reason)
    exact = not reference.dtype.is_floating_point
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        reason = "NaN or infinity where the reference has none, or the reverse"
        return OutputComparison(name, None, None, tolerance, passed=False, reason=reason)
    max_abs = float(np.abs(found[finite] - expected[finite]).max(initial=0.0))
    scale = float(np.abs(expected[finite]).max(initial=0.0))
    max_rel = max_abs / scale if scale > 0 else (0.0 if max_abs == 0 else None)
    allowed = 0.0 if exact else tolerance
    passed = max_abs <= allowed * max(1.0, scale)
    reason = "" if passed else f"differs by {max_abs:.3g}, allowed {allowed * max(1.0, scale):.3g}"
    return OutputComparison(name, max_abs, max_rel, allowed, passed, reason)


def _as_array(values: Tensor | NDArray[Any]) -> NDArray[np.float64]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().to(torch.float64).numpy()
    return np.asarray(values, np.float64)
