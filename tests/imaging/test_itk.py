"""NRRD and MetaImage, against SimpleITK itself and with files that break the rules."""

from __future__ import annotations

import builtins
import gzip

import numpy as np
import pytest

from medmargin.errors import DataError, MissingExtraError
from medmargin.imaging import itk, read_image, write_map

sitk = pytest.importorskip("SimpleITK")


@pytest.fixture
def oblique(rng):
    """An ITK image [K, J, I] = (5, 6, 7) with spacing, origin and an oblique direction."""
    image = sitk.GetImageFromArray(rng.integers(0, 999, (5, 6, 7)).astype(np.int16))
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.1, -0.2, 0.3)
    image.SetDirection(turn.GetMatrix())
    return image


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd"])
def test_every_voxel_lies_where_itk_says_with_the_sign_of_lps_turned(tmp_path, oblique, name, packed):
    sitk.WriteImage(oblique, str(tmp_path / name), packed)
    volume = read_image(tmp_path / name)
    array = sitk.GetArrayFromImage(oblique)
    assert np.array_equal(volume.voxels[0], array.transpose(2, 1, 0))
    assert volume.voxels.dtype == np.int16
    assert volume.spacing == pytest.approx((0.5, 0.75, 3.0))
    for index in [(0, 0, 0), (6, 5, 4), (3, 1, 2)]:
        lps = oblique.TransformIndexToPhysicalPoint(index)
        assert (volume.affine @ (*index, 1))[:3] == pytest.approx((-lps[0], -lps[1], lps[2]))


def test_itk_and_nifti_agree_about_space(tmp_path, oblique):
    for name in ("a.nrrd", "a.nii.gz"):
        sitk.WriteImage(oblique, str(tmp_path / name))
    assert read_image(tmp_path / "a.nrrd").grid.matches(read_image(tmp_path / "a.nii.gz").grid)


def test_components_are_channels(tmp_path, rng):
    values = rng.random((5, 6, 7, 3)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "a.nrrd"))
    assert np.array_equal(read_image(tmp_path / "a.nrrd").voxels, values.transpose(3, 2, 1, 0))
    flat = rng.random((6, 7, 2)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(flat, isVector=True), str(tmp_path / "b.mha"))
    volume = read_image(tmp_path / "b.mha")
    assert np.array_equal(volume.voxels[..., 0], flat.transpose(2, 1, 0))
    assert volume.dims == 2


def test_row_10_a_fourth_axis_needs_an_index(tmp_path, oblique):
    sitk.WriteImage(sitk.JoinSeries([oblique, oblique + 1]), str(tmp_path / "a.nrrd"))
    with pytest.raises(DataError, match="--volume-index"):
        read_image(tmp_path / "a.nrrd")
    second = read_image(tmp_path / "a.nrrd", volume_index=1)
    assert np.array_equal(second.voxels[0], sitk.GetArrayFromImage(oblique + 1).transpose(2, 1, 0))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_maps_say_what_they_are(tmp_path, brain, suffix):
    [path] = write_map(tmp_path / f"u{suffix}", brain.voxels[0], brain, description="total uncertainty (nats)")
    assert sitk.ReadImage(str(path)).GetMetaData("description") == "total uncertainty (nats)"


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_row_34_truncation_and_junk_are_refused(tmp_path, oblique, name, packed):
    path = tmp_path / name
    sitk.WriteImage(oblique, str(path), packed)
    data = path.read_bytes()
    for damaged in (data[:-60], data[: len(data) // 3], data + b"junk"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=name):
            read_image(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_row_34_a_wrong_checksum_is_found(tmp_path, oblique, name):
    path = tmp_path / name
    sitk.WriteImage(oblique, str(path), True)
    data = bytearray(path.read_bytes())
    data[-6 if name == "a.nrrd" else -2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="packed data"):
        read_image(path)


def header(**changes: str) -> bytes:
    fields = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "CompressedData": "False", "Offset": "0 0 0",
        "ElementSpacing": "1 1 1", "DimSize": "2 2 2", "ElementType": "MET_UCHAR", "ElementDataFile": "LOCAL",
    } | changes  # fmt: skip
    return "".join(f"{key} = {value}\n" for key, value in fields.items() if value).encode()


def test_the_plain_header_of_these_tests_is_good(tmp_path):
    (tmp_path / "a.mha").write_bytes(header() + bytes(range(8)))
    assert read_image(tmp_path / "a.mha").voxels.ravel(order="F").tolist() == list(range(8))


@pytest.mark.parametrize(
    "changes",
    [
        {"NDims": "99999999"},
        {"NDims": "7"},
        {"DimSize": "2 2"},
        {"DimSize": "2 0 2"},
        {"DimSize": "-2 2 2"},
        {"ElementSpacing": "1 1"},
        {"Offset": "a b c"},
        {"ElementType": "MET_STRING"},
        {"BinaryData": "False"},
        {"HeaderSize": "16"},
        {"CompressedData": "True"},
        {"CompressedData": "True", "CompressedDataSize": "5"},
        {"ElementNumberOfChannels": "0"},
        {"Nonsense": "x" * 5000},
        {"ElementDataFile": ""},
    ],
)
def test_headers_that_itk_would_misread_are_refused(tmp_path, changes):
    (tmp_path / "a.mha").write_bytes(header(**changes) + bytes(range(8)))
    with pytest.raises(DataError):
        read_image(tmp_path / "a.mha")


@pytest.mark.parametrize("name", ["../b.raw", "/etc/hostname", "b%03d.raw", "LIST", "no/b.raw", "gone.raw"])
def test_voxels_are_read_from_the_same_folder_only(tmp_path, name):
    (tmp_path / "b.raw").write_bytes(bytes(8))
    (tmp_path / "a.mhd").write_bytes(header(ElementDataFile=name))
    with pytest.raises(DataError):
        read_image(tmp_path / "a.mhd")


@pytest.mark.parametrize("line", ["encoding: bzip2", "encoding: ascii", "type: block", "sizes: 2 2", "dimension: 0"])
def test_nrrd_headers_that_are_not_understood_are_refused(tmp_path, line):
    lines = {"type": "type: uchar", "dimension": "dimension: 3", "sizes": "sizes: 2 2 2", "encoding": "encoding: raw"}
    lines[line.partition(":")[0]] = line
    (tmp_path / "a.nrrd").write_bytes("\n".join(["NRRD0004", *lines.values(), "", ""]).encode() + bytes(8))
    with pytest.raises(DataError):
        read_image(tmp_path / "a.nrrd")


def test_a_detached_nrrd_header_is_refused(tmp_path):
    (tmp_path / "a.nrrd").write_text(
        "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/hostname\n\n"
    )
    with pytest.raises(DataError, match="without its data"):
        read_image(tmp_path / "a.nrrd")


def test_row_35_a_claim_larger_than_the_file_is_refused(tmp_path):
    (tmp_path / "a.mha").write_bytes(header(DimSize="32000 32000 32000") + bytes(8))
    with pytest.raises(DataError, match="claims"):
        read_image(tmp_path / "a.mha")


def test_row_36_a_bomb_is_refused(tmp_path):
    head = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 700 700 700\nencoding: gzip\n\n"
    (tmp_path / "a.nrrd").write_bytes(head + gzip.compress(bytes(100)) + bytes(700**3 // 1032))
    with pytest.raises(DataError, match="bomb"):
        read_image(tmp_path / "a.nrrd")


def test_a_missing_extra_is_named(tmp_path, oblique, monkeypatch):
    sitk.WriteImage(oblique, str(tmp_path / "a.nrrd"))
    itk._simpleitk.cache_clear()
    monkeypatch.setattr("medmargin.imaging.decoding.import_module", _absent)
    with pytest.raises(MissingExtraError, match=r"medmargin\[itk\]"):
        read_image(tmp_path / "a.nrrd")


def _absent(name: str) -> None:
    raise builtins.ImportError(name)
