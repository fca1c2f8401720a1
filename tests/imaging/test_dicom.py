"""DICOM in: real series against their recorded facts, and every way a series can be broken."""

from __future__ import annotations

import csv
import hashlib
import io

import nibabel
import numpy as np
import pytest
from PIL import Image

from medmargin.errors import DataError, GeometryError, MissingExtraError
from medmargin.imaging import list_series, read_image, to_working
from medmargin.imaging.volume import LPS_TO_RAS

pytest.importorskip("pydicom")
HEIGHTS = [0.0, 2.5, 5.0, 7.5, 10.0]


def setting(**fields):
    """Edit every slice of a series."""

    def edit(dataset, index):
        for name, value in fields.items():
            setattr(dataset, name, value)

    return edit


@pytest.fixture
def facts(data_root):
    with open(data_root / "dicom/series.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_real_series_have_their_recorded_facts_and_pixels(data_root, facts):
    for row in facts:
        volume = read_image(data_root / "dicom", series=row["description"])
        i, j, k = volume.grid.shape
        assert (k, j, i) == (int(row["slices"]), int(row["rows"]), int(row["columns"]))
        assert volume.spacing[:2] == pytest.approx([float(row["pixel_spacing_mm"])] * 2)
        assert volume.spacing[2] == pytest.approx(float(row["slice_distance_mm"].split()[0]), abs=1e-3)
        normal = volume.affine[:3, 2] / volume.spacing[2]
        assert np.degrees(np.arccos(normal[2])) == pytest.approx(float(row["tilt_from_axial_deg"]), abs=0.05)
        pixels = np.ascontiguousarray(volume.voxels[0].transpose(2, 1, 0).astype("<i4"))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == row["sha256_pixels_in_slice_order"]
        assert (volume.grid.unit, volume.format, volume.warnings) == ("mm", "dicom", ())


def test_real_series_equal_what_highdicom_reads(data_root, facts):
    highdicom, pydicom = pytest.importorskip("highdicom"), pytest.importorskip("pydicom")
    for row in facts:
        volume = read_image(data_root / "dicom", series=row["description"])
        datasets = [pydicom.dcmread(path) for path in (data_root / "dicom" / row["series"]).iterdir()]
        reference = highdicom.get_volume_from_series(datasets, apply_presentation_lut=False)
        reference = reference.match_geometry(
            highdicom.VolumeGeometry((LPS_TO_RAS @ volume.affine)[:, [2, 1, 0, 3]], reference.shape, "PATIENT")
        )
        assert np.array_equal(reference.array.transpose(2, 1, 0), volume.voxels[0])


def test_after_conversion_to_ras_the_crop_fits_the_nifti_set(data_root):
    crop = to_working(read_image(data_root / "dicom", series="HippoCrop")).volume.voxels[0].astype(float)
    total, count = np.zeros(crop.shape), 0
    for path in sorted((data_root / "Dataset004_Hippocampus/imagesTr").glob("*.nii.gz"))[:40]:
        image = np.asanyarray(nibabel.load(path).dataobj).astype(float)
        padded = np.zeros(crop.shape)
        size = [min(a, b) for a, b in zip(image.shape, crop.shape, strict=True)]
        inside = tuple(slice(0, n) for n in size)
        padded[inside] = image[inside] / image.max()
        total, count = total + padded, count + 1
    right = np.corrcoef(crop.ravel(), total.ravel())[0, 1]
    wrong = np.corrcoef(crop[::-1, ::-1].ravel(), total.ravel())[0, 1]
    assert right > wrong + 0.2


def test_series_are_listed_and_chosen_by_any_of_their_names(data_root):
    series = list_series(data_root / "dicom")
    assert [info.description for info in series] == ["T1post", "FLAIR_reg", "HippoCrop"]
    assert [len(info.slices) for info in series] == [22, 22, 40]
    for name in (series[0].uid, "11", "T1post"):
        assert read_image(data_root / "dicom", series=name).grid.shape == (280, 320, 22)
    assert read_image(data_root / "dicom", series="FLAIRreg").grid.shape == (280, 320, 22)  # a folder name
    assert "Dumbledore" not in str(series)


def test_row_17_several_series_are_listed(data_root):
    with pytest.raises(DataError, match=r"3 series\. Choose one with --series.*T1post.*FLAIR_reg.*HippoCrop"):
        read_image(data_root / "dicom")
    with pytest.raises(DataError, match=r"no series 'T2'.*T1post"):
        read_image(data_root / "dicom", series="T2")


def test_slices_are_sorted_by_position_and_rows_come_second(save_series):
    folder = save_series(
        [7.5, 0.0, 5.0, 2.5],
        edit=lambda d, i: setattr(d, "PixelData", np.full((6, 5), d.ImagePositionPatient[2] * 2, np.int16).tobytes()),
    )
    volume = read_image(folder)
    assert volume.voxels[0, 0, 0].tolist() == [0, 5, 10, 15]
    assert volume.grid.shape == (5, 6, 4)
    assert volume.spacing == pytest.approx((0.7, 0.8, 2.5))
    assert volume.affine[:3, 3] == pytest.approx((10, 20, 0))
    assert volume.grid.axis_codes == "LPS"
    assert [d.InstanceNumber for d in volume.header] == [2, 4, 3, 1]
    assert not any("PixelData" in d for d in volume.header)


def test_row_15_monochrome1_is_inverted_for_radiographs_but_not_for_ct(save_series):
    ct = read_image(save_series(HEIGHTS, name="a", edit=setting(PhotometricInterpretation="MONOCHROME1")))
    assert ct.warnings == ()
    xray = read_image(
        save_series(HEIGHTS, name="b", edit=setting(PhotometricInterpretation="MONOCHROME1", Modality="DX"))
    )
    assert "inverted" in xray.warnings[0]


def test_row_15_inversion_keeps_the_range(ct_slice, tmp_path, rng):
    pixels = rng.integers(0, 4000, (6, 5)).astype(np.uint16)
    dataset = ct_slice(pixels, position=(0, 0, 0), instance=1, PhotometricInterpretation="MONOCHROME1", Modality="DX")
    del dataset.ImagePositionPatient
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    volume = read_image(tmp_path / "a.dcm")
    assert np.array_equal(volume.voxels[0, ..., 0].T, pixels.max() - (pixels - pixels.min()))


def test_row_16_a_missing_slice_inside_is_refused_with_its_position(save_series):
    with pytest.raises(GeometryError, match=r"1 slices are missing inside \(at 5\.00 mm"):
        read_image(save_series([0.0, 2.5, 7.5, 10.0]))
    with pytest.raises(GeometryError, match=r"2 slices are missing inside \(at 2\.50, 5\.00 mm"):
        read_image(save_series([0.0, 7.5, 10.0], name="other"))


def test_row_16_missing_slices_at_an_end_are_noticed_by_count(save_series):
    edit = setting(ImagesInAcquisition=7)
    assert "announce 7 slices, 5 are here" in read_image(save_series(HEIGHTS, edit=edit)).warnings[0]

    def later(dataset, index):
        dataset.InstanceNumber = index + 3

    assert "begin at 3" in read_image(save_series(HEIGHTS, edit=later, name="b")).warnings[0]


def test_row_17_duplicate_slices_are_refused(save_series):
    with pytest.raises(GeometryError, match="share their position"):
        read_image(save_series([0.0, 2.5, 2.5, 5.0]))


def test_row_17_overlapping_acquisitions_are_refused(save_series):
    with pytest.raises(GeometryError, match="distance varies"):
        read_image(save_series([0.0, 2.5, 3.3, 5.0, 5.8, 7.5]))


def test_row_18_mixed_orientations_are_refused(save_series):
    def localizer(dataset, index):
        if index == 2:
            dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    with pytest.raises(GeometryError, match="mixed orientations"):
        read_image(save_series(HEIGHTS, edit=localizer))


def test_row_18_variable_spacing_is_refused(save_series):
    with pytest.raises(GeometryError, match=r"from 2\.500 to 3\.100 mm"):
        read_image(save_series([0.0, 2.5, 5.6, 8.1]))


def test_row_18_slices_of_different_size_or_shifted_are_refused(save_series):
    def other_pixels(dataset, index):
        if index == 1:
            dataset.PixelSpacing = [0.9, 0.9]

    def shifted(dataset, index):
        if index == 1:
            dataset.ImagePositionPatient = [-4.0, -20.0, dataset.ImagePositionPatient[2]]

    with pytest.raises(GeometryError, match="Expected equal slices"):
        read_image(save_series(HEIGHTS, edit=other_pixels, name="a"))
    with pytest.raises(GeometryError, match="shifted against each other"):
        read_image(save_series(HEIGHTS, edit=shifted, name="b"))


def test_row_19_gantry_tilt_becomes_a_shear_with_a_warning(save_series):
    def tilt(dataset, index):
        height = float(dataset.ImagePositionPatient[2])
        dataset.ImagePositionPatient = [-10.0, round(-20.0 + height * np.tan(np.radians(15)), 6), height]

    volume = read_image(save_series(HEIGHTS, edit=tilt))
    assert "gantry tilt of 15.0 degrees" in volume.warnings[0]
    assert volume.grid.shear == pytest.approx(np.sin(np.radians(15)), abs=1e-4)
    assert volume.spacing[2] == pytest.approx(2.5 / np.cos(np.radians(15)), abs=1e-4)
    working = to_working(volume)
    assert working.volume.grid.shear < 1e-6
    assert working.volume.spacing[2] == pytest.approx(2.5, abs=1e-4)
    assert working.restore_labels(working.volume.voxels[0]).shape == volume.grid.shape


def test_row_20_the_rescale_of_each_slice_is_its_own(save_series):
    def rescale(dataset, index):
        dataset.PixelData = np.full((6, 5), 100, np.int16).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = index + 1, -1024

    volume = read_image(save_series(HEIGHTS, edit=rescale))
    assert volume.voxels[0, 0, 0].tolist() == [100 * (k + 1) - 1024 for k in range(5)]
    assert volume.voxels.dtype == np.int16


def test_row_20_fractional_rescale_gives_real_numbers(save_series):
    volume = read_image(save_series(HEIGHTS, edit=setting(RescaleSlope="0.25", RescaleIntercept="0")))
    assert volume.voxels.dtype == np.float32


def test_row_20_a_private_transfer_syntax_is_refused(save_series):
    folder = save_series(HEIGHTS)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.4.5.6".ljust(20, b"\0")))
    with pytest.raises(DataError, match="private or unknown"):
        read_image(folder)


def test_row_20_jpeg_lossless_without_a_codec_names_the_extra(save_series):
    from pydicom.encaps import encapsulate

    def edit(dataset, index):
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"

    with pytest.raises(DataError, match=r"no codec for 'JPEG Lossless.*medmargin\[dicom\]"):
        read_image(save_series(HEIGHTS, edit=edit))


def test_jpeg_2000_slices_are_read(save_series):
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    pixels = np.arange(64 * 48, dtype=np.uint8).reshape(64, 48)

    def pack(dataset, index):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG2000", irreversible=False)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless

    assert np.array_equal(read_image(save_series(HEIGHTS, edit=pack)).voxels[0, ..., 2].T, pixels)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless"])
def test_packed_slices_are_read(save_series, syntax):
    import pydicom.uid

    plain = read_image(save_series(HEIGHTS, edit=_constant_along_k, name="plain"))

    def pack(dataset, index):
        _constant_along_k(dataset, index)
        dataset.compress(getattr(pydicom.uid, syntax), generate_instance_uid=False)

    assert np.array_equal(read_image(save_series(HEIGHTS, edit=pack, name="packed")).voxels, plain.voxels)


def _constant_along_k(dataset, index):
    dataset.PixelData = (np.arange(30, dtype=np.int16) * (index + 1)).tobytes()


def test_a_single_slice_file_is_a_volume_of_one_slice(save_series):
    volume = read_image(next(save_series([4.0]).iterdir()))
    assert (volume.grid.shape, volume.dims) == ((5, 6, 1), 3)
    assert volume.spacing == pytest.approx((0.7, 0.8, 2.5))


def test_a_colour_picture_without_place_is_a_picture(ct_slice, tmp_path, rng):
    pixels = rng.integers(0, 255, (6, 5, 3)).astype(np.uint8)
    dataset = ct_slice(pixels, position=(0, 0, 0), instance=1, Modality="US")
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, name)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    volume = read_image(tmp_path / "a.dcm")
    assert np.array_equal(volume.voxels[..., 0], pixels.transpose(2, 1, 0))
    assert (volume.dims, volume.grid.unit) == (2, "px")


def test_row_10_a_film_needs_a_frame(ct_slice, tmp_path, rng):
    frames = rng.integers(0, 255, (3, 6, 5)).astype(np.uint8)
    dataset = ct_slice(
        frames[0], position=(0, 0, 0), instance=1, Modality="XA", NumberOfFrames=3, PixelData=frames.tobytes()
    )
    del dataset.ImagePositionPatient
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match="film of 3 frames"):
        read_image(tmp_path / "a.dcm")
    assert np.array_equal(read_image(tmp_path / "a.dcm", volume_index=1).voxels[0, ..., 0].T, frames[1])


def test_positions_are_needed_for_a_series(save_series):
    def strip(dataset, index):
        del dataset.ImagePositionPatient

    with pytest.raises(GeometryError, match="no position"):
        read_image(save_series(HEIGHTS, edit=strip))


def test_other_files_in_the_folder_are_left_alone(save_series):
    folder = save_series(HEIGHTS)
    (folder / "notes.txt").write_text("not an image")
    (folder / "sub").mkdir()
    (folder / "sub" / "empty.dcm").touch()
    assert read_image(folder).grid.shape == (5, 6, 5)


def test_damaged_slices_are_named(save_series):
    folder = save_series(HEIGHTS)
    victim = sorted(folder.iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:-20])
    with pytest.raises(DataError, match=victim.name):
        read_image(folder)


def test_row_35_a_slice_that_claims_more_than_its_file_holds_is_refused(save_series):
    with pytest.raises(DataError):
        read_image(save_series(HEIGHTS, edit=setting(Rows=60000, Columns=60000)))


def test_a_missing_extra_is_named(save_series, monkeypatch):
    folder = save_series(HEIGHTS)

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr("medmargin.imaging.decoding.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"medmargin\[dicom\]"):
        read_image(folder)
