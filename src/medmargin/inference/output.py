"""A segmentation as files beside each other, all on the image's own grid and all or none of them there.

| image | label map | besides |
|---|---|---|
| NIfTI, NRRD/MHA, array | `<case>_seg.nii.gz` | label tables for ITK-SNAP and Slicer |
| picture | `<case>_seg.png` | |
| DICOM | `<case>_seg.nii.gz` | label tables, `<case>_seg.dcm`, `<case>_uncertainty.dcm` |
| challenge NPZ | `<case>_seg.npz` with `segs` | |

Every case also gets `<case>_uncertainty.nii.gz` (total), `<case>_uncertainty_aleatoric.nii.gz` and `_epistemic.nii.gz`
where they are known, `<case>_confidence.csv` and `.json`, and, when asked, `<case>_prob_<label>.nii.gz` per structure.
A calibrated run adds `<case>_margin_<label>.nii.gz` per structure: 0 surely outside, 1 undecided, 2 surely inside.
Networks that give evidence or edges add maps in [0, 1], in steps of 1/250:

| map | holds |
|---|---|
| `<case>_vacuity.nii.gz` | share of the answer that no evidence backs, K / S |
| `<case>_edge.nii.gz` | probability of an edge |
| `<case>_edge_uncertainty.nii.gz` | share of the edge answer that no evidence backs |
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

from medmargin import imaging
from medmargin.errors import ConfigError
from medmargin.inference.segmentation import Segmentation, StructureResult
from medmargin.storage import atomic_path, write_json

_LABEL_SUFFIX = {"picture": ".png", "npz": ".npz"}
_MEANING = {"vacuity": "vacuity (0 to 1)", "edge": "probability of an edge", "edge_uncertainty": "vacuity of the edge"}


def save_segmentation(segmentation: Segmentation, folder: Path, name: str, *, probabilities: bool) -> list[Path]:
    """Write all files of a case; see `Segmentation.save`."""
    if probabilities and segmentation.probabilities is None:
        raise ConfigError(f"{name}: the probabilities were not kept. Predict with probabilities=True to write them.")
    written: list[Path] = []
    try:
        for files in _files(segmentation, folder, name, probabilities=probabilities):
            written += files
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    return written


def _files(segmentation: Segmentation, folder: Path, name: str, *, probabilities: bool) -> Iterator[list[Path]]:
    image = segmentation.image
    suffix = _LABEL_SUFFIX.get(image.format, ".nii.gz")
    yield imaging.write_labels(folder / f"{name}_seg{suffix}", segmentation.labels, image, names=segmentation.names)
    for part, values in segmentation.uncertainty.items():
        path = folder / (f"{name}_uncertainty.nii.gz" if part == "total" else f"{name}_uncertainty_{part}.nii.gz")
        yield imaging.write_map(path, values, image, description=f"{part} uncertainty (nats)")
    for part, values in segmentation.maps.items():
        path = folder / f"{name}_{part}.nii.gz"
        yield imaging.write_map(path, values, image, description=_MEANING[part], compact=True)
    if probabilities and segmentation.probabilities is not None:
        for structure, values in zip(segmentation.structures, segmentation.probabilities, strict=True):
            path = folder / f"{name}_prob_{structure.label}.nii.gz"
            yield imaging.write_map(path, values, image, description=f"probability of {structure.name}", compact=True)
    for structure in segmentation.with_margin:
        names = {1: f"{structure.name} undecided", 2: f"{structure.name} surely inside"}
        path = folder / f"{name}_margin_{structure.label}.nii.gz"
        yield imaging.write_labels(path, segmentation.margin(structure.name), image, names=names)
    if image.format == "dicom":
        yield from _dicom_files(segmentation, folder, name)
    yield [_table(folder / f"{name}_confidence.csv", segmentation.structures)]
    summary = folder / f"{name}_confidence.json"
    write_json(summary, {"case": name, **segmentation.summary()})
    yield [summary]


def _dicom_files(segmentation: Segmentation, folder: Path, name: str) -> Iterator[list[Path]]:
    image = segmentation.image
    seg, parametric = folder / f"{name}_seg.dcm", folder / f"{name}_uncertainty.dcm"
    imaging.write_dicom_seg(seg, segmentation.labels, image, names=segmentation.names)
    yield [seg]
    imaging.write_parametric_map(
        parametric, segmentation.uncertainty["total"], image, description="total uncertainty", unit="nats"
    )
    yield [parametric]


def _table(path: Path, structures: list[StructureResult]) -> Path:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(StructureResult)])
        writer.writeheader()
        writer.writerows(asdict(structure) for structure in structures)
    return path
