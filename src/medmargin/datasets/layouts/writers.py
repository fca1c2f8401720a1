"""Write a data set in any of the layouts, one case after the other, then its description.

Labels are written with the contiguous values 1..K of the task, and K + 1 for voxels that nobody labelled. What a layout
has no place for is left out; `convert` says what that is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmargin.datasets.case import Case
from medmargin.datasets.layouts.description import FILE_NAME
from medmargin.datasets.layouts.manifest import FILE_NAME as MANIFEST
from medmargin.datasets.layouts.npz import TEST_FOLDER, challenge_intensities
from medmargin.datasets.layouts.tables import write_table
from medmargin.datasets.splits import Splits, write_splits
from medmargin.datasets.task import IGNORE, Task
from medmargin.errors import ConfigError
from medmargin.imaging import Volume, challenge_npz
from medmargin.imaging.image_output import write_image
from medmargin.storage import write_json


class Writer(ABC):
    """Writes one data set.

    Args:
        folder: an empty folder.
        task: channels and structures.

    Raises:
        ConfigError: the layout cannot hold such a task.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder = folder
        self.task = task
        self.training: list[Case] = []
        self.test: list[Case] = []

    def add(self, case: Case, image: Volume, label: Volume | None, *, is_test: bool) -> None:
        """Write the files of one case."""
        written = self._write(case, image, label, is_test=is_test)
        (self.test if is_test else self.training).append(written)

    def finish(self, splits: Splits) -> None:
        """Write the description and the split of the cases that were written."""
        self._describe()
        names = {case.name for case in (*self.training, *self.test)}
        folds = tuple(
            {part: tuple(case for case in cases if case in names) for part, cases in fold.items()}
            for fold in splits.folds
        )
        if folds:
            file = "splits.json" if len(folds) == 1 else "splits_final.json"
            write_splits(self.folder / file, replace(splits, folds=folds))

    @abstractmethod
    def _write(self, case: Case, image: Volume, label: Volume | None, *, is_test: bool) -> Case:
        """Write one case and return it with its new paths."""

    @abstractmethod
    def _describe(self) -> None:
        """Write everything that is not an image."""

    @property
    def _ending(self) -> str:
        return ".png" if self.task.dims == 2 else ".nii.gz"

    def _description(self) -> dict[str, Any]:
        """Describe the task in the words of nnU-Net."""
        task = self.task
        labels: dict[str, Any] = {"background": 0, **task.structures, **task.regions}
        if task.ignore is not None:
            labels[IGNORE] = task.ignore
        regions = {"regions_class_order": list(task.structures.values())} if task.regions else {}
        return {
            "name": self.task.name,
            "channel_names": {str(index): name for index, name in enumerate(self.task.channels)},
            "labels": labels,
            **regions,
            "numTraining": len(self.training),
            "file_ending": self._ending,
            "spacing_known": self.task.unit == "mm",
        }

    def _write_attributes(self) -> None:
        cases = (*self.training, *self.test)
        rows = [{"case": case.name, **case.attributes, "patient": case.patient} for case in cases]
        write_table(self.folder / "attributes.csv", rows)


class NnunetWriter(Writer):
    """nnU-Net raw layout: NIfTI volumes or PNG pictures, one file per channel (RGB pictures: one file)."""

    def _write(self, case: Case, image: Volume, label: Volume | None, *, is_test: bool) -> Case:
        suffix = "Ts" if is_test else "Tr"
        channels = [image] if image.dims == 2 and image.channels == 3 else [image.with_voxels(v) for v in image.voxels]
        for index, channel in enumerate(channels):
            write_image(self.folder / f"images{suffix}" / f"{case.name}_{index:04d}{self._ending}", channel)
        if label is not None:
            write_image(self.folder / f"labels{suffix}" / f"{case.name}{self._ending}", label, is_label=True)
        return case

    def _describe(self) -> None:
        write_json(self.folder / FILE_NAME, self._description())
        self._write_attributes()
        texts = [{"case": case.name, "text": case.text} for case in (*self.training, *self.test) if case.text]
        if texts:
            write_table(self.folder / "texts.csv", texts)


class MsdWriter(Writer):
    """Medical Segmentation Decathlon layout: NIfTI volumes, channels along the fourth axis."""

    def __init__(self, folder: Path, task: Task) -> None:
        if task.dims != 3:
            raise ConfigError("the MSD layout holds volumes only; convert pictures to 'nnunet', 'npz' or 'manifest'")
        if task.regions or task.ignore is not None:
            raise ConfigError(
                f"the MSD layout has no place for the overlapping regions or 'ignore' label of '{task.name}'; convert "
                "to 'nnunet', 'npz' or 'manifest'"
            )
        super().__init__(folder, task)

    def _write(self, case: Case, image: Volume, label: Volume | None, *, is_test: bool) -> Case:
        suffix, file = "Ts" if is_test else "Tr", f"{case.name}.nii.gz"
        paths = Path(f"images{suffix}", file), Path(f"labels{suffix}", file)
        write_image(self.folder / paths[0], image)
        if label is not None:
            write_image(self.folder / paths[1], label, is_label=True)
        return replace(case, images=(paths[0],), label=None if label is None else paths[1])

    def _describe(self) -> None:
        training, test = ([_msd_entry(case) for case in cases] for cases in (self.training, self.test))
        description = {
            "name": self.task.name,
            "tensorImageSize": "4D" if len(self.task.channels) > 1 else "3D",
            "modality": {str(index): name for index, name in enumerate(self.task.channels)},
            "labels": {"0": "background", **{str(value): name for name, value in self.task.structures.items()}},
            "spacing_known": self.task.unit == "mm",
            "numTraining": len(training),
            "numTest": len(test),
            "training": training,
            "test": [entry if "label" in entry else entry["image"] for entry in test],
        }
        write_json(self.folder / FILE_NAME, description)
        self._write_attributes()


class NpzWriter(Writer):
    """Challenge layout: one NPZ per case, intensities scaled to 0..255 as the challenge does."""

    def __init__(self, folder: Path, task: Task) -> None:
        if len(task.channels) not in ((1, 3) if task.dims == 2 else (1,)):
            raise ConfigError(f"the challenge layout has no place for {len(task.channels)} channels in {task.dims}-D")
        super().__init__(folder, task)

    def _write(self, case: Case, image: Volume, label: Volume | None, *, is_test: bool) -> Case:
        folder = self.folder / TEST_FOLDER if is_test else self.folder
        scaled = image.with_voxels(challenge_intensities(image.voxels, is_ct=self.task.modality == "CT"))
        labels = None if label is None else label.voxels[0]
        challenge_npz.write(folder / f"{case.name}.npz", scaled, labels=labels)
        return case

    def _describe(self) -> None:
        write_json(self.folder / FILE_NAME, self._description())
        self._write_attributes()


class ManifestWriter(Writer):
    """CSV manifest beside the folders `images` and `labels`; all channels of a volume in one NIfTI."""

    def _write(self, case: Case, image: Volume, label: Volume | None, *, is_test: bool) -> Case:
        file = f"{case.name}{self._ending}"
        write_image(self.folder / "images" / file, image)
        if label is not None:
            write_image(self.folder / "labels" / file, label, is_label=True)
        return replace(case, images=(Path("images", file),), label=None if label is None else Path("labels", file))

    def _describe(self) -> None:
        rows = [
            {
                "case": case.name,
                "patient": case.patient,
                "image": case.images[0].as_posix(),
                "label": "" if case.label is None else case.label.as_posix(),
                "split": part,
                "text": case.text or "",
                **{name: value for name, value in case.attributes.items() if name != "patient"},
            }
            for part, cases in (("", self.training), ("test", self.test))
            for case in cases
        ]
        write_table(self.folder / MANIFEST, rows)
        write_json(self.folder / FILE_NAME, self._description())


WRITERS: dict[str, type[Writer]] = {
    "nnunet": NnunetWriter,
    "msd": MsdWriter,
    "npz": NpzWriter,
    "manifest": ManifestWriter,
}


def _msd_entry(case: Case) -> dict[str, str]:
    image = {"image": f"./{case.images[0].as_posix()}"}
    return image if case.label is None else {**image, "label": f"./{case.label.as_posix()}"}
