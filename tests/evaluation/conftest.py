"""Cases that every test of this room can measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from medmargin.evaluation import CaseResult, VolumeInterval, measure_case
from medmargin.imaging.volume import Grid

STRUCTURES = {"anterior": 1, "posterior": 2}


def by_structure(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Split a label map into one mask per structure."""
    return {structure: labels == value for structure, value in STRUCTURES.items()}


def made_case(
    seed: int = 0, *, name: str = "case_1", patient: str | None = None, unit: str = "mm", **changes: Any
) -> CaseResult:
    """Measure two overlapping-ish blocks with noisy probabilities on a 12 x 14 x 10 grid of 1 x 1 x 2 mm."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:7, 3:10, 2:8], truth[7:10, 3:10, 2:8] = 1, 2
    labels = np.roll(truth, int(rng.integers(-1, 2)), axis=1)
    labels[rng.random(labels.shape) < 0.01] = 0
    probabilities = {
        structure: np.clip(0.85 * (labels == value) + 0.1 * rng.random(labels.shape), 0, 1).astype(np.float32)
        for structure, value in STRUCTURES.items()
    }
    arguments: dict[str, Any] = {
        "truth": truth,
        "labels": labels,
        "grid": Grid(truth.shape, np.diag([1.0, 1.0, 2.0, 1.0]), unit),
        "structures": STRUCTURES,
        "probabilities": probabilities,
        "uncertainty": (0.3 * (labels != truth) + 0.2 * rng.random(labels.shape)).astype(np.float32),
        "volumes": {structure: VolumeInterval(0.4, 0.3, 0.5, 0.9) for structure in STRUCTURES},
        "floors": {"box": by_structure((truth > 0).astype(np.uint8)), "ellipse": by_structure(labels)},
        "seconds": 1.5,
    }
    arguments |= changes
    return measure_case(name, patient or name, arguments.pop("truth"), arguments.pop("labels"), **arguments)


@pytest.fixture
def make_case() -> Callable[..., CaseResult]:
    """Build a measured case; keyword arguments replace those of `measure_case`."""
    return made_case
