"""Every faulty file of the shared collection gets the answer its table asks for, as far as reading goes."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from medmargin.errors import DataError
from medmargin.imaging import finite_image, read_image, read_label, require_signal, to_working


@pytest.fixture
def pair(data_root):
    """Find image and label of a fault by name."""

    def find(name: str):
        folder = data_root / "broken/derived" / name
        return folder / f"{name}_0000.nii.gz", folder / f"{name}.nii.gz"

    return find


def test_every_derived_fault_has_a_test_here(data_root):
    with open(data_root / "broken/broken.csv", newline="") as stream:
        faults = {row["path"].removeprefix("derived/") for row in csv.DictReader(stream) if "derived" in row["path"]}
    assert faults == {
        "shape_mismatch", "affine_mismatch", "origin_shift", "truncated_gzip", "empty_file", "unknown_label_value",
        "fractional_label", "nan_inf_image", "constant_image", "empty_label", "four_dimensional_image",
        "flipped_axis_same_world", "not_gzipped", "text_as_label",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [("shape_mismatch", "(35, 51, 35)"), ("affine_mismatch", "spacing"), ("origin_shift", "origin")],
)
def test_rows_21_and_22_grids_that_differ_are_described(pair, name, words):
    image, label = pair(name)
    difference = read_image(image).grid.difference(read_label(label).grid)
    assert words in difference


def test_row_34_truncated_gzip_is_refused(pair):
    image, label = pair("truncated_gzip")
    with pytest.raises(DataError, match="truncated_gzip_0000"):
        read_image(image)
    assert read_label(label).channels == 1


def test_row_37_empty_file_and_text_are_refused(pair):
    with pytest.raises(DataError, match=r"empty_file_0000.*empty"):
        read_image(pair("empty_file")[0])
    with pytest.raises(DataError, match=r"text_as_label.*plain text"):
        read_label(pair("text_as_label")[1])


def test_row_37_not_gzipped_is_read_with_a_warning(pair):
    volume = read_image(pair("not_gzipped")[0])
    assert "not gzip-packed" in volume.warnings[0]
    require_signal(volume)


def test_row_23_fractional_label_is_refused(pair):
    with pytest.raises(DataError, match=r"8 voxels.*0\.5"):
        read_label(pair("fractional_label")[1])


def test_row_24_an_unknown_value_is_read_for_the_plan_to_judge(pair):
    assert np.count_nonzero(read_label(pair("unknown_label_value")[1]).voxels == 7) == 27


def test_row_01_nan_and_inf_are_replaced_with_a_warning(pair):
    repaired = finite_image(read_image(pair("nan_inf_image")[0]))
    assert np.isfinite(repaired.voxels).all()
    assert "2 of" in repaired.warnings[0]


def test_row_02_constant_image_has_no_signal(pair):
    with pytest.raises(DataError, match="no signal"):
        require_signal(read_image(pair("constant_image")[0]))


def test_row_25_an_empty_label_is_accepted(pair):
    assert not read_label(pair("empty_label")[1]).voxels.any()


def test_row_09_one_time_point_is_squeezed(pair):
    image, label = pair("four_dimensional_image")
    assert read_image(image).grid.matches(read_label(label).grid)


def test_axes_flipped_in_the_file_agree_after_reorienting(pair):
    image, label = pair("flipped_axis_same_world")
    before = read_image(image).grid.difference(read_label(label).grid)
    assert "orientation RAS vs LAS" in before
    assert to_working(read_image(image)).volume.grid.matches(to_working(read_label(label)).volume.grid)
