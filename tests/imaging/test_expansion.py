"""The one guard against bombs, and the border to other people's decoders."""

from __future__ import annotations

import warnings

import pytest

from medmargin.errors import BudgetError, DataError, GeometryError, MissingExtraError
from medmargin.imaging.decoding import decoding, load_extra
from medmargin.imaging.expansion import HARMLESS_BYTES, LARGEST_BYTES, LARGEST_RATIO, refuse_bomb


@pytest.mark.parametrize(
    ("packed", "expanded"),
    [
        (1, HARMLESS_BYTES),  # a huge ratio is harmless while the result is small
        (HARMLESS_BYTES, HARMLESS_BYTES * LARGEST_RATIO // 16),
        ((HARMLESS_BYTES + 200) // LARGEST_RATIO + 1, HARMLESS_BYTES + 1),
        (LARGEST_BYTES, LARGEST_BYTES),
    ],
)
def test_row_36_honest_expansions_pass(packed, expanded):
    refuse_bomb("file", packed=packed, expanded=expanded)


@pytest.mark.parametrize(("packed", "expanded"), [(1000, HARMLESS_BYTES + 1), (LARGEST_BYTES, LARGEST_BYTES + 1)])
def test_row_36_bombs_and_giants_are_refused(packed, expanded):
    with pytest.raises(DataError, match="MiB"):
        refuse_bomb("file", packed=packed, expanded=expanded)


def test_decoders_may_raise_anything():
    for error in (
        KeyError("x"),
        SyntaxError(),
        RecursionError(),
        OverflowError("big"),
        UnicodeDecodeError("a", b"", 0, 1, "b"),
    ):
        with (
            pytest.raises(DataError, match=r"scan\.nii: damaged or unsupported header") as caught,
            decoding("scan.nii", "header"),
        ):
            raise error
        assert caught.value.__cause__ is error


def test_memory_running_out_is_a_matter_of_budget():
    with pytest.raises(BudgetError, match="not enough memory"), decoding("scan.nii", "image"):
        raise MemoryError


def test_typed_errors_and_interrupts_pass():
    for error in (GeometryError("tilted"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, decoding("scan.nii", "image"):
            raise error
        assert caught.value is error


def test_warnings_of_decoders_are_dropped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with decoding("scan.nii", "image"):
            warnings.warn("noise", UserWarning, stacklevel=1)


def test_a_missing_package_names_its_extra():
    with pytest.raises(MissingExtraError, match=r"'no_such_package'.*medmargin\[dicom\]"):
        load_extra("no_such_package.part", extra="dicom", purpose="reading DICOM")
