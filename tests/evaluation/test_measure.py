from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medmargin.errors import DataError, GeometryError
from medmargin.evaluation import CaseResult, VolumeInterval, measure_case, voxels
from medmargin.imaging.volume import Grid

MakeCase = Callable[..., CaseResult]
CASE_KEYS = {"case", "patient", "seconds", "structures", "volumes_ml", "uncertainty"}
STRUCTURE_KEYS = {"dice", "iou", "nsd", "hd95_mm", "assd_mm", "relative_volume_error", "state"}
VOLUME_KEYS = {"true", "estimate", "low", "high", "level"}
UNCERTAINTY_KEYS = {
    "ece", "mce", "rmsce", "brier", "nll", "auroc", "average_precision", "fpr95", "ueo", "ueo_max", "ueo_max_threshold",
    "aurc", "qu_brats", "qu_brats_dice_auc", "qu_brats_ftp_auc", "qu_brats_ftn_auc", "structures", "band",
    "ece_classwise", "ece_adaptive", "pavpu", "accurate_if_certain", "uncertain_if_inaccurate",
    "uncertain_if_inaccurate_reason",  # no square of this case is mostly wrong
}  # fmt: skip


def test_case_has_exactly_the_documented_keys(make_case: MakeCase) -> None:
    entry = make_case().entry
    assert entry.keys() - {"floors"} == CASE_KEYS
    assert all(figures.keys() == STRUCTURE_KEYS for figures in entry["structures"].values())
    assert all(volume.keys() == VOLUME_KEYS for volume in entry["volumes_ml"].values())
    assert entry["uncertainty"].keys() - {"error_rate", "case_score"} == UNCERTAINTY_KEYS
    assert {"ece", "auroc", "error_rate"} <= entry["uncertainty"]["band"].keys()


def test_perfect_prediction(make_case: MakeCase) -> None:
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:7, 3:10, 2:8], truth[7:10, 3:10, 2:8] = 1, 2
    probabilities = {name: (truth == value).astype(float) for name, value in (("anterior", 1), ("posterior", 2))}
    entry = make_case(
        truth=truth, labels=truth.copy(), probabilities=probabilities, uncertainty=np.zeros(truth.shape)
    ).entry
    for figures in entry["structures"].values():
        assert figures["dice"] == figures["iou"] == figures["nsd"] == 1
        assert figures["hd95_mm"] == figures["assd_mm"] == figures["relative_volume_error"] == 0
    assert entry["uncertainty"]["ece"] == entry["uncertainty"]["brier"] == entry["uncertainty"]["nll"] == 0


def test_volumes_are_in_ml_and_true_ones_come_from_the_truth(make_case: MakeCase) -> None:
    volumes = make_case().entry["volumes_ml"]
    assert volumes["anterior"]["true"] == pytest.approx(5 * 7 * 6 * 2 / 1000)
    assert volumes["anterior"]["estimate"] == 0.4
    without = make_case(volumes=None).entry["volumes_ml"]["anterior"]
    assert without["estimate"] > 0
    assert without["low"] is None
    assert without["low_reason"]


def test_unknown_spacing_never_gives_millimetres_or_millilitres(make_case: MakeCase) -> None:
    result = make_case(unit="px")
    assert result.nsd_tolerance == 2.0
    for figures in result.entry["structures"].values():
        assert figures["hd95_mm"] is figures["assd_mm"] is None
        assert figures["hd95_px"] >= 0
    for name, volume in result.entry["volumes_ml"].items():
        assert set(volume) == {*VOLUME_KEYS, "reason"}
        assert all(volume[key] is None for key in VOLUME_KEYS)
        assert result.entry["volumes_px"][name]["true"] == int(result.entry["volumes_px"][name]["true"])


def test_slabs_do_not_change_the_numbers(make_case: MakeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_case().entry
    monkeypatch.setattr(voxels, "_SLAB_VOXELS", 300)
    in_slabs = make_case().entry
    for structures in (entry["uncertainty"]["band"].pop("structures") for entry in (whole, in_slabs)):
        assert structures["anterior"].keys() == {"qu_brats", "dice_auc", "ftp_auc", "ftn_auc"}
    assert in_slabs["uncertainty"]["band"] == pytest.approx(whole["uncertainty"]["band"])
    assert in_slabs["uncertainty"]["nll"] == pytest.approx(whole["uncertainty"]["nll"])


def test_figures_of_raters_and_attributes_are_there_only_where_they_are(make_case: MakeCase) -> None:
    plain = make_case().entry
    assert not {"raters", "attributes"} & plain.keys()
    other = np.zeros((12, 14, 10), np.uint8)
    other[2:7, 3:10, 2:8] = 1
    entry = make_case(raters=[other], attributes={"sex": "F"}).entry
    assert entry["raters"]["n"] == 2
    assert entry["attributes"] == {"sex": "F"}
    assert entry["uncertainty"] == plain["uncertainty"]


def test_moving_the_whole_case_changes_nothing_inside(make_case: MakeCase) -> None:
    first = make_case(seed=4)
    shifted = np.eye(4)
    shifted[:3, 3] = 5.0
    grid = Grid((12, 14, 10), shifted @ np.diag([1.0, 1.0, 2.0, 1.0]))
    assert make_case(seed=4, grid=grid).entry == first.entry


def test_structures_can_have_any_label_values_in_any_order(make_case: MakeCase) -> None:
    truth = np.zeros((6, 6, 4), int)
    truth[1:3], truth[4:] = 7, 3
    labels = np.roll(truth, 1, axis=1)
    grid = Grid(truth.shape, np.eye(4))
    probabilities = {"x": (labels == 7) * 0.8, "y": (labels == 3) * 0.7}
    plain = measure_case("c", "p", truth, labels, grid=grid, structures={"x": 7, "y": 3}, probabilities=probabilities)
    renamed = np.array([0, 2, 0, 1, 0, 0, 0, 5])
    other = measure_case(
        "c", "p", renamed[truth], renamed[labels], grid=grid, structures={"y": 1, "x": 5}, probabilities=probabilities
    )
    assert plain.entry["structures"]["x"] == other.entry["structures"]["x"]
    for name in ("ece", "brier", "nll", "error_rate"):
        assert plain.entry["uncertainty"][name] == pytest.approx(other.entry["uncertainty"][name])


@pytest.mark.parametrize("what", ["labels", "truth", "uncertainty", "probabilities", "floors", "raters"])
def test_row_21_label_of_another_shape_is_refused(make_case: MakeCase, what: str) -> None:
    wrong = np.zeros((3, 3, 3))
    value = {"probabilities": {"anterior": wrong}, "floors": {"box": {"anterior": wrong}}, "raters": [wrong]}.get(
        what, wrong
    )
    with pytest.raises(GeometryError, match=r"case_1: .*shape \(3, 3, 3\), the image \(12, 14, 10\)"):
        make_case(**{what: value})


@pytest.mark.parametrize("what", ["labels", "truth"])
def test_row_24_label_values_that_are_no_structure_are_named(make_case: MakeCase, what: str) -> None:
    array = np.zeros((12, 14, 10), int)
    array[0, 0, :2] = -1, 255
    with pytest.raises(DataError, match=r"label map of rater 2 holds the values \[-1, 255\]"):
        make_case(raters=[array])
    with pytest.raises(DataError, match=r"case_1: .* \[-1, 255\].*known: 0 background, 1 anterior, 2 posterior"):
        make_case(**{what: array})


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1.0), (0.0, 1.5), (0.0, np.nan), (0.0, np.inf)])
def test_impossible_probabilities_are_refused(make_case: MakeCase, low: float, high: float) -> None:
    array = np.zeros((12, 14, 10))
    array[0, 0, :2] = low, high
    with pytest.raises(DataError, match="probability of anterior runs from"):
        make_case(probabilities={"anterior": array})


def test_case_score_needs_no_truth_and_exists_for_an_empty_mask(make_case: MakeCase) -> None:
    result = make_case()
    other = make_case(truth=np.zeros((12, 14, 10), np.uint8))
    assert result.entry["uncertainty"]["case_score"] == other.entry["uncertainty"]["case_score"]
    empty = make_case(labels=np.zeros((12, 14, 10), np.uint8), uncertainty=np.full((12, 14, 10), 0.25))
    assert empty.entry["uncertainty"]["case_score"] == 0.25


@pytest.mark.parametrize(("has_truth", "has_mask"), [(True, True), (False, False), (True, False), (False, True)])
def test_empty_mask_matrix_of_a_whole_case(has_truth: bool, has_mask: bool) -> None:
    block = np.zeros((8, 8, 6), np.uint8)
    block[2:5, 2:5, 2:5] = 1
    empty = np.zeros_like(block)
    truth, labels = (block if has_truth else empty), (block if has_mask else empty)
    entry = measure_case(
        "c", "p", truth, labels, grid=Grid(block.shape, np.eye(4)), structures={"lesion": 1},
        probabilities={"lesion": labels * 0.9}, uncertainty=labels * 0.3,
        volumes={"lesion": VolumeInterval(float(labels.sum()) / 1000, 0.0, 1.0, 0.9)},
    ).entry  # fmt: skip
    band = entry["uncertainty"]["band"]
    if not has_truth and not has_mask:
        assert band["ece"] is band["auroc"] is band["error_rate"] is None
        assert band["ece_reason"] == band["error_rate_reason"] == "no voxel in this region"
    else:
        assert band["ece"] >= 0
        assert band["error_rate"] == pytest.approx(27 / np.count_nonzero(_near(block)) * (has_truth != has_mask))


def _near(block: np.ndarray) -> np.ndarray:
    from medmargin.uncertainty.bands import band

    return band(block)
