"""Do the volume intervals hold, and what do they cost? Coverage and relative width, together and by structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Volume = Mapping[str, float]


def volume_coverage(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compute the share of the true volumes that lie inside their interval; it should be at least the level.

    Args:
        entries: `cases` of `evaluate --json`.

    Returns:
        level, covered, n, n_covered, mean_relative_width ((high - low) / true volume, cases with none left out) of all
        structures, and of each in `structures`, there with ci95 of the share (Clopper, Pearson 1934; one interval per
        case). A number that does not exist is None with its reason beside it.
    """
    stated: dict[str, list[Volume]] = {}
    for entry in entries:
        for name, volume in (entry.get("volumes_px") or entry["volumes_ml"]).items():
            stated.setdefault(name, []).extend([volume] if volume["low"] is not None else [])
    found = _coverage([volume for volumes in stated.values() for volume in volumes])
    return found | {"structures": {name: _coverage(volumes) | _share(volumes) for name, volumes in stated.items()}}


def _coverage(volumes: Sequence[Volume]) -> dict[str, Any]:
    if not volumes:
        reason = "the predictions came without volume intervals"
        missing = dict.fromkeys(("level", "covered", "mean_relative_width"))
        return {**missing, "n": 0, "n_covered": 0, "reason": reason}
    levels = sorted({volume["level"] for volume in volumes})
    covered = _covered(volumes)
    found: dict[str, Any] = {"level": levels[0], "covered": covered / len(volumes), "n": len(volumes)}
    found["n_covered"] = covered
    if len(levels) > 1:
        found |= {"level": None, "level_reason": f"intervals of different levels: {levels}"}
    widths = [(volume["high"] - volume["low"]) / volume["true"] for volume in volumes if volume["true"] > 0]
    found["mean_relative_width"] = float(np.mean(widths)) if widths else None
    if not widths:
        found["mean_relative_width_reason"] = "every true volume is 0"
    return found


def _share(volumes: Sequence[Volume]) -> dict[str, Any]:
    if not volumes:
        return {"ci95": None}
    interval = stats.binomtest(_covered(volumes), len(volumes)).proportion_ci(method="exact")
    return {"ci95": [float(interval.low), float(interval.high)]}


def _covered(volumes: Sequence[Volume]) -> int:
    return sum(volume["low"] <= volume["true"] <= volume["high"] for volume in volumes)
