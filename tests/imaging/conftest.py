"""Builders of small image files, good and bad."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from medmargin.imaging import Volume, from_array


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240817)


@pytest.fixture
def brain(rng: np.random.Generator) -> Volume:
    """A small anisotropic volume of whole numbers in RAS."""
    return from_array(rng.integers(0, 1000, (7, 6, 5)).astype(np.int16), spacing=(1.0, 1.5, 3.0))


@pytest.fixture
def save_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as NIfTI with any header field set to any value, also those nibabel would not write."""

    def save(
        values: NDArray[Any], *, affine: NDArray[Any] | None = None, name: str = "scan.nii.gz", **fields: Any
    ) -> Path:
        data = bytearray(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine).to_bytes())
        header = np.frombuffer(data, nibabel.Nifti1Header.template_dtype, count=1)[0]
        for field, value in fields.items():
            header[field] = value
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return save


@pytest.fixture
def ct_slice() -> Callable[..., Any]:
    """Make one CT slice as a DICOM data set."""

    def make(pixels: NDArray[Any], *, position: Sequence[float], instance: int, **fields: Any) -> Any:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(position), str(instance)])
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
        dataset.FrameOfReferenceUID, dataset.Modality = "1.2.3.9", "CT"
        dataset.SeriesNumber, dataset.SeriesDescription, dataset.InstanceNumber = 4, "abdomen", instance
        dataset.PatientName, dataset.PatientID = "Test^Patient", "T1"
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
        dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
        if pixels.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.ImagePositionPatient = list(position)
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.7], 2.5
        dataset.PixelData = pixels.tobytes()
        for field, value in fields.items():
            setattr(dataset, field, value)
        return dataset

    return make


@pytest.fixture
def save_series(tmp_path: Path, ct_slice: Callable[..., Any], rng: np.random.Generator) -> Callable[..., Path]:
    """Write a CT series of 6 rows x 5 columns, under file names in no order of space.

    `heights` are positions along z in mm; `edit(dataset, index)` changes a slice before it is written.
    """

    def save(
        heights: Sequence[float],
        *,
        edit: Callable[[Any, int], None] = lambda dataset, index: None,
        name: str = "series",
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for index, height in enumerate(heights):
            pixels = rng.integers(0, 2000, (6, 5)).astype(np.int16)
            dataset = ct_slice(pixels, position=(-10.0, -20.0, height), instance=index + 1)
            edit(dataset, index)
            dataset.save_as(folder / f"{(index * 7) % 101:03d}.dcm", enforce_file_format=True)
        return folder

    return save
