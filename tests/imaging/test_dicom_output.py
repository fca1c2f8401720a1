"""DICOM Segmentation and Parametric Map, read back by highdicom at their places in space."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import ConfigError, DataError, GeometryError
from medmargin.imaging import from_array, read_image, write_dicom_seg, write_parametric_map
from medmargin.imaging.volume import LPS_TO_RAS

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
HEIGHTS = [0.0, 2.5, 5.0, 7.5]
NAMES = {1: "liver", 5: "spleen"}


def on_grid_of(source, read):
    """Bring a highdicom volume to the array order of the source: [I, J, K]."""
    affine = (LPS_TO_RAS @ source.affine)[:, [2, 1, 0, 3]]
    geometry = highdicom.VolumeGeometry(affine, source.grid.shape[::-1], "PATIENT")
    return read.match_geometry(geometry).array.transpose(2, 1, 0)


@pytest.fixture
def source(save_series):
    return read_image(save_series(HEIGHTS))


@pytest.fixture
def labels(source):
    labels = np.zeros(source.grid.shape, np.uint8)
    labels[1:3, 1:5, 1:3] = 1
    labels[4, 2, 1] = 5
    return labels


@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP"])
def test_a_segmentation_comes_back_at_its_place(tmp_path, source, labels, encoding):
    [path] = write_dicom_seg(tmp_path / "seg.dcm", labels, source, names=NAMES, encoding=encoding)
    seg = highdicom.seg.segread(path)
    read = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    assert np.array_equal(on_grid_of(source, read), np.searchsorted([0, 1, 5], labels))
    assert [item.SegmentLabel for item in seg.SegmentSequence if item.SegmentNumber] == ["liver", "spleen"]
    assert seg.StudyInstanceUID == source.header[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == source.header[0].FrameOfReferenceUID
    assert seg.SeriesInstanceUID != source.header[0].SeriesInstanceUID


@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP"])
def test_an_empty_segmentation_is_written_whole(tmp_path, source, labels, encoding):
    [path] = write_dicom_seg(tmp_path / "seg.dcm", labels * 0, source, names=NAMES, encoding=encoding)
    read = highdicom.seg.segread(path).get_volume(combine_segments=True)
    assert read.shape == source.grid.shape[::-1]
    assert not read.array.any()


def test_a_parametric_map_is_exact(tmp_path, source, rng):
    values = rng.normal(size=source.grid.shape).astype(np.float32)
    [path] = write_parametric_map(tmp_path / "u.dcm", values, source, description="total uncertainty", unit="nats")
    image = highdicom.imread(path)
    assert np.array_equal(
        on_grid_of(source, image.get_volume(dtype=np.float32, apply_real_world_transform=False)), values
    )
    mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeMeaning == "nats"
    assert mapping.LUTExplanation == "total uncertainty"


def test_a_constant_map_and_plain_numbers(tmp_path, source):
    [path] = write_parametric_map(tmp_path / "p.dcm", np.zeros(source.grid.shape), source, description="p", unit="1")
    mapping = highdicom.imread(path).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


def test_a_tilted_gantry_keeps_its_frames(tmp_path, save_series, labels):
    def tilt(dataset, index):
        height = float(dataset.ImagePositionPatient[2])
        dataset.ImagePositionPatient = [-10.0, round(-20.0 + 0.2 * height, 6), height]

    tilted = read_image(save_series(HEIGHTS, edit=tilt, name="tilted"))
    [path] = write_dicom_seg(tmp_path / "seg.dcm", labels, tilted, names=NAMES)
    seg = highdicom.seg.segread(path)
    uids = [dataset.SOPInstanceUID for dataset in tilted.header]
    frames = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(frames.transpose(2, 1, 0), np.searchsorted([0, 1, 5], labels))


def test_an_enhanced_multi_frame_file_goes_in_and_out(tmp_path, save_series, labels, rng):
    plain = read_image(folder := save_series(HEIGHTS, edit=_complete, name="plain"))
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(path) for path in sorted(folder.iterdir())],
        series_instance_uid=highdicom.UID(), series_number=2, sop_instance_uid=highdicom.UID(), instance_number=1,
    )  # fmt: skip
    enhanced.save_as(tmp_path / "enhanced.dcm")
    volume = read_image(tmp_path / "enhanced.dcm")
    assert np.array_equal(volume.reoriented("RAS").voxels, plain.reoriented("RAS").voxels)
    assert volume.reoriented("RAS").grid.matches(plain.reoriented("RAS").grid)
    [path] = write_dicom_seg(tmp_path / "seg.dcm", labels, volume, names=NAMES)
    read = highdicom.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    assert np.array_equal(on_grid_of(volume, read), np.searchsorted([0, 1, 5], labels))
    values = rng.random(volume.grid.shape).astype(np.float32)
    [path] = write_parametric_map(tmp_path / "u.dcm", values, volume, description="u", unit="nats")
    read = highdicom.imread(path).get_volume(dtype=np.float32, apply_real_world_transform=False)
    assert np.array_equal(on_grid_of(volume, read), values)


def _complete(dataset, index):
    """Fill in what a real scanner writes and the conversion to multi-frame needs."""
    empty = (
        "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
        "ReferringPhysicianName", "Manufacturer", "PositionReferenceIndicator",
    )  # fmt: skip
    fields = dict.fromkeys(empty, "") | {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientPosition": "HFS", "AcquisitionNumber": 1,
        "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU", "KVP": 120,
        "SeriesDate": "20240101", "AcquisitionDate": "20240101", "ContentDate": "20240101",
        "SeriesTime": "120000", "AcquisitionTime": "120000", "ContentTime": "120000",
    }  # fmt: skip
    for name, value in fields.items():
        setattr(dataset, name, value)


def test_a_radiograph_takes_a_segmentation_but_no_parametric_map(tmp_path, ct_slice, rng):
    dataset = ct_slice(rng.integers(0, 255, (6, 5)).astype(np.uint8), position=(0, 0, 0), instance=1, Modality="DX")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
        delattr(dataset, name)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    source = read_image(tmp_path / "a.dcm")
    labels = (source.voxels[0] > 100).astype(np.uint8)
    [path] = write_dicom_seg(tmp_path / "seg.dcm", labels, source, names={1: "lung"})
    assert np.array_equal(highdicom.seg.segread(path).pixel_array.T, labels[..., 0])
    with pytest.raises(DataError, match="positions in space"):
        write_parametric_map(tmp_path / "u.dcm", labels * 1.0, source, description="u", unit="nats")


def test_real_series_take_a_segmentation(tmp_path, data_root):
    source = read_image(data_root / "dicom", series="HippoCrop")
    labels = (source.voxels[0] > 100).astype(np.uint8)
    [path] = write_dicom_seg(tmp_path / "seg.dcm", labels, source, names={1: "bright"})
    read = highdicom.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    assert np.array_equal(on_grid_of(source, read), labels)


def test_what_cannot_be_written_is_refused(tmp_path, source, labels, brain):
    path = tmp_path / "seg.dcm"
    with pytest.raises(DataError, match="not read from DICOM"):
        write_dicom_seg(path, np.zeros(brain.grid.shape, int), brain, names=NAMES)
    with pytest.raises(DataError, match=r"labels \[5\] have no name"):
        write_dicom_seg(path, labels, source, names={1: "liver"})
    with pytest.raises(GeometryError, match="same grid"):
        write_dicom_seg(path, labels[1:], source, names=NAMES)
    with pytest.raises(ConfigError, match="BINARY or LABELMAP"):
        write_dicom_seg(path, labels, source, names=NAMES, encoding="FRACTIONAL")
    with pytest.raises(DataError, match="not finite"):
        write_parametric_map(path, labels * np.nan, source, description="u", unit="nats")
    with pytest.raises(GeometryError, match="same grid"):
        write_parametric_map(path, labels[1:] * 1.0, source, description="u", unit="nats")
    assert not path.exists()


def test_arrays_are_no_dicom():
    volume = from_array(np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="not read from DICOM"):
        write_parametric_map("u.dcm", volume.voxels[0], volume, description="u", unit="1")
