"""What held-out patients guarantee: regions, distances, volumes and Dice of rescaled answers, and figures of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.evaluation.bands import band
from medmargin.evaluation.overlap import dice
from medmargin.evaluation.voxels import VoxelCounter, count_voxels, voxel_figures
from medmargin.inference.segmentation import Segmentation
from medmargin.inference.trust import features_of
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
_SLAB_VOXELS = 2_000_000
_FIGURES = ("ece", "nll", "brier")


@dataclass
class _Seen:
    """One structure of the answers so far."""

    patients: list[str] = field(default_factory=list)
    counts: list[MaskCounts] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    volumes: list[PredictedVolume] = field(default_factory=list)


class GuaranteeFit:
    """Takes rescaled answers of held-out patients one by one.

    Structures that were not asked for in a case (prompts) say nothing there.

    Args:
        structures: names. level: of every guarantee.
    """

    def __init__(self, structures: Sequence[str], *, level: float) -> None:
        self.level = level
        self._seen = {name: _Seen() for name in structures}
        self._units: set[str] = set()
        self._scored: list[ScoredStructure] = []

    def add(
        self, case: str, patient: str, answer: Segmentation, truth: NDArray[Any], values: Mapping[str, int]
    ) -> None:
        """Take in one case.

        Args:
            answer: rescaled, with the model's own volume intervals and with probabilities.
            truth: [I, J, K] label values of `values`.
        """
        grid, features = answer.image.grid, features_of(answer)
        self._units.add(grid.unit)
        spacing = grid.spacing if grid.unit == "mm" else (1.0, 1.0, 1.0)
        maps = answer.probabilities if answer.probabilities is not None else ()
        for found, probability in zip(answer.structures, maps, strict=True):
            inside, mask = truth == values[found.name], answer.labels == found.label
            seen = self._seen[found.name]
            seen.patients.append(patient)
            seen.counts.append(count_mask(probability, inside, mask))
            seen.scores.append(margin_scores(mask, inside, spacing, tolerated=TOLERATED))
            size = float(np.count_nonzero(inside))
            seen.volumes.append(PredictedVolume(found.low_voxels, float(found.voxels), found.high_voxels, size))
            self._scored.append(ScoredStructure(case, patient, found.name, features[found.name], dice(inside, mask)))

    def guarantees(self) -> tuple[dict[str, StructureGuarantees], dict[str, str]]:
        """Give what the patients can carry: structure -> guarantees, and "<structure>/<kind>" -> why there is none."""
        found, refused = {}, {}
        for name, seen in self._seen.items():
            makers: dict[str, Callable[[], Any]] = {
                "thresholds": lambda seen=seen, name=name: control_thresholds(  # type: ignore[misc]
                    seen.counts, seen.patients, risk=round(1 - self.level, 12), structure=name
                ),
                "distances": lambda seen=seen, name=name: self._distances(seen, name),  # type: ignore[misc]
                "volume": lambda seen=seen, name=name: conformal_volumes(  # type: ignore[misc]
                    seen.volumes, seen.patients, level=self.level, structure=name
                ),
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

    def _distances(self, seen: _Seen, name: str) -> Any:
        if len(self._units) > 1:
            raise DataError(f"distance margins of {name}: some images say how large a voxel is and others do not")
        unit = next(iter(self._units), "mm")
        return conformal_margins(
            seen.scores, seen.patients, level=self.level, structure=name, tolerated=TOLERATED, unit=unit
        )


class FigureCounter:
    """Calibration figures of answers that come one by one, of all voxels and of the bands."""

    def __init__(self) -> None:
        self._whole, self._near = VoxelCounter(), VoxelCounter()

    def add(self, answer: Segmentation, truth: NDArray[Any], values: Mapping[str, int]) -> None:
        """Count one case; the truth holds the label values of `values`."""
        maps = answer.probabilities if answer.probabilities is not None else ()
        named = {found.name: probability for found, probability in zip(answer.structures, maps, strict=True)}
        region = band(truth, answer.labels)
        thickness = max(1, _SLAB_VOXELS // (truth.shape[0] * truth.shape[1]))
        for start in range(0, truth.shape[2], thickness):
            slab = np.s_[:, :, start : start + thickness]
            count_voxels(
                [(self._whole, None), (self._near, region[slab])],
                truth=truth[slab],
                labels=answer.labels[slab],
                structures=values,
                probabilities={name: probability[slab] for name, probability in named.items()},
                uncertainty=None,
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
