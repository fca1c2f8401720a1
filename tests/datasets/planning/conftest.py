"""Fingerprints of data sets nobody has to read, and a plain U-Net in torch to count against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from medmargin.datasets.planning import Fingerprint
from medmargin.datasets.planning.fingerprint import ForegroundIntensities
from medmargin.datasets.task import Task


@pytest.fixture
def fingerprint() -> Callable[..., Fingerprint]:
    """Make the fingerprint of `cases` equal images; shape and spacing along (R, A, S)."""

    def build(
        shape: Sequence[int] = (35, 50, 36),
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        cases: int = 260,
        channels: Sequence[str] = ("MRI",),
        structures: int = 2,
        modality: str = "other",
        kept: float = 1.0,
        dims: int = 3,
    ) -> Fingerprint:
        names = {f"structure {value}": value for value in range(1, structures + 1)}
        return Fingerprint(
            task=Task("Made up", tuple(channels), names, dims=dims, modality=modality),
            shapes=(tuple(shape),) * cases,
            spacings=(tuple(spacing),) * cases,
            kept=kept,
            intensities={channel: ForegroundIntensities(50.0, 30.0, -20.0, 200.0) for channel in channels},
            structures=dict.fromkeys(names, cases),
        )

    return build
