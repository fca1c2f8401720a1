"""What held-out patients guarantee: regions, distances, volumes and Dice of rescaled answers, and figures of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import Task, mask_of
from medmargin.errors import DataError
from medmargin.evaluation.ignored import IGNORED_REASON, cleared
from medmargin.evaluation.overlap import dice
from medmargin.evaluation.voxels import VoxelCounter, count_slabs, voxel_figures
from medmargin.inference.segmentation import Segmentation
from medmargin.inference.trust import features_of
from medmargin.uncertainty.bands import band
from medmargin.uncertainty.calibration import (
    Figures,
    MaskCounts,
    PredictedVolume,
    StructureGuarantees,
    conformal_margins,
    conformal_volumes,
    control_thresholds,
    count_mask,
    margin_scores,
)
from medmargin.uncertainty.trust import PredictedDice, ScoredStructure

TOLERATED = 0.05  # share of a structure's volume that may lie outside a distance margin, as HD95 leaves 5 % out
_FIGURES = ("ece", "nll", "brier")


@dataclass
class _Seen:
    """One structure of the answers so far; `measured` are the patients of `volumes`."""

    patients: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    counts: list[MaskCounts] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    volumes: list[PredictedVolume] = field(default_factory=list)


class GuaranteeFit:
    """Takes rescaled answers of held-out patients one by one.

    Structures that were not asked for in a case (prompts) say nothing there. Of voxels that nobody labelled nothing is
    known to be wrong, and the volume of a case that has some is not known.

    Args:
        structures: names. task: of the data, with the label values of its structures. level: of every guarantee.
    """

    def __init__(self, structures: Sequence[str], task: Task, *, level: float) -> None:
        self.level, self._task = level, task
        self._seen = {name: _Seen() for name in structures}
        self._units: set[str] = set()
        self._scored: list[ScoredStructure] = []

    def add(self, case: str, patient: str, answer: Segmentation, truth: NDArray[Any]) -> None:
        """Take in one case.

        Args:
            answer: rescaled, with the model's own volume intervals and with probabilities.
            truth: [I, J, K] label values of the task, `ignore` too.
        """
        grid, features = answer.image.grid, features_of(answer)
        self._units.add(grid.unit)
        spacing = grid.spacing if grid.unit == "mm" else (1.0, 1.0, 1.0)
        ignored = cleared((truth,), answer.labels, self._task.ignore)[2]
        counted = None if ignored is None else ~ignored
        maps = answer.probabilities if answer.probabilities is not None else ()
        for found, probability in zip(answer.structures, maps, strict=True):
            inside, mask = mask_of(truth, self._task.members[found.name]), answer.mask(found)
            seen = self._seen[found.name]
            seen.patients.append(patient)
            seen.counts.append(count_mask(probability, inside, mask, counted))
            seen.scores.append(margin_scores(mask, inside, spacing, tolerated=TOLERATED, counted=counted))
            overlap = dice(inside, mask if counted is None else mask & counted)
            self._scored.append(ScoredStructure(case, patient, found.name, features[found.name], overlap))
            if counted is None:
                size = float(np.count_nonzero(inside))
                seen.volumes.append(PredictedVolume(found.low_voxels, float(found.voxels), found.high_voxels, size))
                seen.measured.append(patient)

    def guarantees(self) -> tuple[dict[str, StructureGuarantees], dict[str, str]]:
        """Give what the patients can carry: structure -> guarantees, and "<structure>/<kind>" -> why there is none."""
        found, refused = {}, {}
        for name, seen in self._seen.items():
            makers: dict[str, Callable[[], Any]] = {
                "thresholds": lambda seen=seen, name=name: control_thresholds(  # type: ignore[misc]
                    seen.counts, seen.patients, risk=round(1 - self.level, 12), structure=name
                ),
                "distances": lambda seen=seen, name=name: self._distances(seen, name),  # type: ignore[misc]
                "volume": lambda seen=seen, name=name: self._volume(seen, name),  # type: ignore[misc]
            }
            given = {}
            for kind, make in makers.items():
                try:
                    given[kind] = make()
                except DataError as error:
                    refused[f"{name}/{kind}"] = str(error)
            found[name] = StructureGuarantees(**given)
        return found, refused

    def predicted_dice(self) -> tuple[PredictedDice | None, str]:
        """Learn to predict the Dice; None with its reason where the patients are too few."""
        try:
            return PredictedDice.fit(self._scored), ""
        except DataError as error:
            return None, str(error)

    def _volume(self, seen: _Seen, name: str) -> Any:
        if seen.patients and not seen.measured:
            raise DataError(f"volume interval of {name}: in every case {IGNORED_REASON}")
        return conformal_volumes(seen.volumes, seen.measured, level=self.level, structure=name)

    def _distances(self, seen: _Seen, name: str) -> Any:
        if len(self._units) > 1:
            raise DataError(f"distance margins of {name}: some images say how large a voxel is and others do not")
        unit = next(iter(self._units), "mm")
        return conformal_margins(
            seen.scores, seen.patients, level=self.level, structure=name, tolerated=TOLERATED, unit=unit
        )


class FigureCounter:
    """Calibration figures of answers that come one by one, of all voxels and of the bands; see `evaluation.voxels`.

    Args:
        task: of the data.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._whole, self._near = VoxelCounter(), VoxelCounter()

    def add(self, answer: Segmentation, truth: NDArray[Any]) -> None:
        """Count one case; the truth holds the label values of the task."""
        maps = answer.probabilities if answer.probabilities is not None else ()
        named = {found.name: probability for found, probability in zip(answer.structures, maps, strict=True)}
        (truth,), labels, ignored = cleared((truth,), answer.labels, self._task.ignore)
        counted = None if ignored is None else ~ignored
        region = band(truth, labels) if counted is None else band(truth, labels) & counted
        count_slabs(
            [(self._whole, counted), (self._near, region)],
            truth=truth,
            labels=labels,
            structures=self._task.structures,
            probabilities=named,
            uncertainty=None,
            regions=self._task.members if self._task.regions else None,
        )

    def figures(self) -> dict[str, Any]:
        """Give ece, nll and brier, and the same of the "band"; None with its reason where there is none."""
        found, near = (voxel_figures(counter.tally()) for counter in (self._whole, self._near))
        return {**_chosen(found), "band": _chosen(near)}


def recorded(figures: Mapping[str, Any]) -> Figures:
    """Give figures as the calibration records them."""
    near = figures["band"]
    return Figures(nll=figures["nll"], ece=figures["ece"], band_nll=near["nll"], band_ece=near["ece"])


def _chosen(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key.removesuffix("_reason") in _FIGURES}
