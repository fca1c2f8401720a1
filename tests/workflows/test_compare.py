from __future__ import annotations

import json
import shutil
from pathlib import Path

from medmargin.workflows.compare import compare
from medmargin.workflows.evaluate import evaluate


def test_runs_are_compared_by_their_last_evaluation(trained: Path, phantoms: Path, tmp_path: Path) -> None:
    evaluate(trained, phantoms, split="test")
    twin = shutil.copytree(trained, tmp_path / "twin")
    comparison = compare([trained, twin], metrics=["dice"])
    text = json.dumps(comparison, allow_nan=False)
    assert "twin" in text
    assert '"p": 0' not in text  # two patients without any difference prove nothing
