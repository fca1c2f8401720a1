"""DICOM out (extra `dicom`): Segmentation for labels, Parametric Map for real numbers, on the source's own frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin import __version__
from medmargin.errors import ConfigError, DataError, GeometryError
from medmargin.imaging.decoding import decoding, load_extra
from medmargin.imaging.tables import colour
from medmargin.imaging.volume import LPS_TO_RAS, Volume
from medmargin.storage import atomic_path

_SERIES_NUMBER = 900
_REQUIRED_BUT_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip


def write_dicom_seg(
    path: Path | str, labels: NDArray[Any], like: Volume, *, names: Mapping[int, str], encoding: str = "BINARY"
) -> list[Path]:
    """Write a label map as DICOM Segmentation.

    Args:
        path: .dcm file.
        labels: [I, J, K] whole numbers >= 0 on the grid of `like`.
        like: the image, read from DICOM.
        names: label value -> structure name; the values become segment numbers 1..K in their order.
        encoding: "BINARY" (one bit per voxel and structure, read by every viewer) or "LABELMAP" (one number per voxel).

    Returns:
        the file written.

    Raises:
        DataError: `like` was not read from DICOM, or labels without a name.
        GeometryError: `labels` has another shape than the image.
        ConfigError: an unknown encoding.
        MissingExtraError: highdicom is not installed.
    """
    if encoding not in ("BINARY", "LABELMAP"):
        raise ConfigError(f"encoding '{encoding}' is unknown. Expected BINARY or LABELMAP.")
    target = _checked(Path(path), labels, like)
    highdicom = load_extra("highdicom", extra="dicom", purpose="writing DICOM")
    values = sorted(names)
    unnamed = sorted(set(np.unique(labels).tolist()) - {0, *values})
    if unnamed or not values or values[0] < 1:
        raise DataError(
            f"{target}: labels {unnamed} have no name among {dict(names)}. Expected a name for every value from 1 on."
        )
    segments = np.searchsorted([0, *values], labels).astype(np.min_scalar_type(len(values)))
    with decoding(like.source, "DICOM source of a segmentation"):
        segmentation = highdicom.seg.Segmentation(
            source_images=_sources(like),
            pixel_array=_frames(segments, like),
            segmentation_type=encoding,
            segment_descriptions=[_segment(index, value, names[value]) for index, value in enumerate(values, start=1)],
            omit_empty_frames=bool(segments.any()),
            series_number=_SERIES_NUMBER,
            **_origin("medmargin segmentation"),
        )
    with atomic_path(target) as temporary:
        segmentation.save_as(temporary)
    return [target]


def write_parametric_map(
    path: Path | str, values: NDArray[Any], like: Volume, *, description: str, unit: str
) -> list[Path]:
    """Write a map as DICOM Parametric Map of 32-bit real numbers.

    Args:
        path: .dcm file.
        values: [I, J, K] real numbers on the grid of `like`.
        like: the image, read from DICOM.
        description: what the numbers are, as in "total uncertainty".
        unit: "nats", or "1" for probabilities and other plain numbers.

    Raises:
        DataError: `like` was not read from DICOM or has no place in space, or values are not finite.
        GeometryError: `values` has another shape than the image.
        MissingExtraError: highdicom is not installed.
    """
    target = _checked(Path(path), values, like)
    if "ImagePositionPatient" not in like.header[0] and "PerFrameFunctionalGroupsSequence" not in like.header[0]:
        raise DataError(
            f"{target}: a parametric map needs a source with positions in space, {like.source} has none. "
            "Write .png or .nii.gz."
        )
    if not np.isfinite(values).all():
        raise DataError(f"{target}: the map holds values that are not finite. Expected real numbers.")
    highdicom = load_extra("highdicom", extra="dicom", purpose="writing DICOM")
    low, high = float(values.min()), float(values.max())
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=description[:16],
        lut_explanation=description[:64],
        unit=_unit(unit),
        value_range=(low, max(high, np.nextafter(low, np.inf))),
        slope=1.0,
        intercept=0.0,
    )
    with decoding(like.source, "DICOM source of a parametric map"):
        parametric = highdicom.pm.ParametricMap(
            source_images=_sources(like),
            pixel_array=_frames(values.astype(np.float32), like),
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[highdicom.VOILUTTransformation((low + high) / 2, max(high - low, 1e-6))],
            contains_recognizable_visual_features=False,
            series_number=_SERIES_NUMBER + 1,
            **_origin(description),
        )
    with atomic_path(target) as temporary:
        parametric.save_as(temporary)
    return [target]


def _checked(target: Path, values: NDArray[Any], like: Volume) -> Path:
    if like.format != "dicom":
        raise DataError(
            f"{target}: the image ({like.source}) was not read from DICOM. Write .nii.gz, or segment the DICOM series."
        )
    if values.shape != like.grid.shape:
        raise GeometryError(
            f"{target}: the array has the shape {values.shape}, its image {like.grid.shape}. Expected the same grid."
        )
    return target


def _sources(like: Volume) -> list[Any]:
    """Complete the source's data sets with the attributes every DICOM object must have, if only empty (type 2)."""
    sources = []
    for dataset in like.header:
        completed = dataset.copy()
        for keyword in _REQUIRED_BUT_MAY_BE_EMPTY:
            if keyword not in completed:
                setattr(completed, keyword, "")
        sources.append(completed)
    return sources


def _frames(values: NDArray[Any], like: Volume) -> Any:
    """Arrange [I, J, K] as the source's frames: one per slice file, or a volume where one file holds all."""
    frames = np.ascontiguousarray(values.transpose(2, 1, 0))
    source = like.header[0]
    if len(like.header) > 1 or int(source.get("NumberOfFrames") or 1) == 1:
        return frames
    from highdicom import Volume as DicomVolume

    affine = (LPS_TO_RAS @ like.affine)[:, [2, 1, 0, 3]]
    return DicomVolume(frames, affine, coordinate_system="PATIENT", frame_of_reference_uid=source.FrameOfReferenceUID)


def _origin(description: str) -> dict[str, Any]:
    from highdicom import UID

    return {
        "series_instance_uid": UID(),
        "sop_instance_uid": UID(),
        "instance_number": 1,
        "manufacturer": "medmargin",
        "manufacturer_model_name": "medmargin",
        "software_versions": __version__,
        "device_serial_number": "none",
        "content_description": description[:64],
    }


def _segment(number: int, value: int, name: str) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = AlgorithmIdentificationSequence("medmargin", codes.DCM.ArtificialIntelligence, __version__)
    return SegmentDescription(
        number,
        name[:64],
        codes.SCT.AnatomicalStructure,
        codes.SCT.AnatomicalStructure,
        "SEMIAUTOMATIC",
        algorithm_identification=algorithm,
        display_color=CIELabColor.from_rgb(*colour(value)),
    )


def _unit(unit: str) -> Any:
    from highdicom.sr import CodedConcept

    if unit == "1":
        return CodedConcept("1", "UCUM", "no units")
    return CodedConcept(f"{{{unit}}}", "UCUM", unit)  # UCUM writes units of its own in braces
