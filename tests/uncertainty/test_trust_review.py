"""The review list: order, the reason in words, the slice, and that it fits into a table."""

from __future__ import annotations

import csv
import io
import json

import pytest

from medmargin.errors import DataError
from medmargin.uncertainty.trust import (
    CaseFeatures,
    CaseForReview,
    DicePrediction,
    Familiarity,
    SliceToLook,
    StructureForReview,
    review_list,
)
from medmargin.uncertainty.trust.predicted_dice import EMPTY

_STRANGE = Familiarity(True, 0.05, {"geometry": 0.01}, "geometry", ("voxels are 3.2 mm apart",), "Unlike: 3.2 mm.")
_USUAL = Familiarity(False, 0.05, {"geometry": 0.6}, "geometry", (), "Like the others.")


def _structure(dice: float, *, voxels: int = 500, standing: dict[str, float] | None = None) -> StructureForReview:
    features = CaseFeatures(voxels, 3, {}, SliceToLook(1, 41))
    answer = DicePrediction(dice, dice - 0.1, 0.9, "isotonic", 20) if voxels else DicePrediction(
        0.0, 0.0, 0.9, "no mask", 20, EMPTY)  # fmt: skip
    return StructureForReview(features, answer, standing or {})


def test_unlike_cases_come_first_then_the_largest_expected_error() -> None:
    cases = [
        CaseForReview("good", "a", {"organ": _structure(0.9)}, _USUAL),
        CaseForReview("bad", "b", {"organ": _structure(0.9), "lesion": _structure(0.3)}, _USUAL),
        CaseForReview("strange", "c", {"organ": _structure(0.95)}, _STRANGE),
        CaseForReview("unknown", "d", {"organ": _structure(0.5)}),
    ]
    rows = review_list(cases)
    assert [(row["rank"], row["case"]) for row in rows] == [(1, "strange"), (2, "bad"), (3, "unknown"), (4, "good")]
    assert [row["unlike_training"] for row in rows] == [True, False, None, False]
    assert rows[0]["reason"].startswith("Unlike: 3.2 mm.")
    assert (rows[1]["structure"], rows[1]["axis"], rows[1]["slice"]) == ("lesion", "j", 41)
    assert rows[1]["expected_error"] == pytest.approx(0.7)


def test_the_reason_names_what_stands_out_most() -> None:
    standing = {"expected_dice": 0.99, "border_uncertainty": 0.93, "largest_piece": 0.85}
    reason = review_list([CaseForReview("x", "x", {"lesion": _structure(0.3, standing=standing)})])[0]["reason"]
    assert "lesion: the mask is expected to reach a Dice of 0.30" in reason
    assert "at least 0.20 in 90 of 100 patients" in reason
    assert "Its border is unusually uncertain: 93 of 100 calibration masks look better in this." in reason
    calm = review_list([CaseForReview("x", "x", {"lesion": _structure(0.9, standing={"compactness": 0.4})})])
    assert calm[0]["reason"].endswith("Nothing in its mask stands out.")


def test_a_missing_mask_leads_the_list() -> None:
    cases = [CaseForReview(name, name, {"o": _structure(0.1, voxels=v)}) for name, v in (("a", 9), ("b", 0))]
    rows = review_list(cases)
    assert rows[0]["case"] == "b"
    assert rows[0]["reason"] == "o: no mask was found. If the structure is there, it was missed."


def test_rows_are_plain_and_equal_cases_are_ordered_by_name() -> None:
    rows = review_list([CaseForReview(name, name, {"o": _structure(0.5)}, _USUAL) for name in ("b", "a")])
    assert [row["case"] for row in rows] == ["a", "b"]
    assert json.loads(json.dumps(rows)) == rows
    table = io.StringIO()
    csv.DictWriter(table, rows[0].keys()).writerows(rows)
    assert review_list([]) == []


def test_a_case_without_structures_is_named() -> None:
    with pytest.raises(DataError, match="lost: no structure"):
        review_list([CaseForReview("lost", "p", {})])
