"""A small data set of phantoms and a run trained on it for a few steps, shared by the journeys' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmargin.datasets.phantoms import write_phantom_dataset


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and two test volumes."""
    folder = tmp_path_factory.mktemp("data") / "Dataset900_Phantom"
    return write_phantom_dataset(folder, cases=8, test_cases=2, raters=1)


@pytest.fixture(scope="session")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps from random weights."""
    from medmargin.workflows.train import train

    run = tmp_path_factory.mktemp("runs") / "phantom"
    outcome = train("u-medsam", phantoms, run=run, steps=4, scale="laptop", settings={"init": "none"}, progress=False)
    assert (outcome.steps, outcome.stopped_by) == (4, "steps")
    return run
