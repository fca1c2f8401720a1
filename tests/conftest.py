"""Fixtures every room shares: where the real images and the authors' reference numbers are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Seed torch before every test, whatever ran before it; tests that do not use torch do not import it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real, licensed images; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("MEDMARGIN_DATA", _ROOT / "../shared/data")).resolve()
    if not (folder / "SHA256SUMS").exists():
        pytest.skip(f"real images not found in {folder}: set MEDMARGIN_DATA to the data collection")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the authors' reference numbers; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("MEDMARGIN_GOLDEN", _ROOT / "../shared/golden")).resolve()
    if not folder.is_dir():
        pytest.skip(f"reference numbers not found in {folder}: set MEDMARGIN_GOLDEN to their folder")
    return folder
