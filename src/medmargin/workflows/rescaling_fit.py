"""Which rescaling of the probabilities to use: fitted on patients, and chosen on patients who were left out.

Candidates, from simple to complex: none, one temperature, one temperature on the logits behind the evidence and a scale
of the evidence (networks that give evidence), a slope and an offset per class, and a temperature per pixel where it was
asked for. Patients are dealt into three folds; each
candidate is fitted on two and judged by -ln p of the truth in the band of the third. What is within 0.1 % of the best
counts as equal, and the simplest of the equal ones is fitted once more, on all.
Each is fitted to the band, where nearly all errors are: far from borders probabilities lie at 0 and 1 by any fit. A
candidate whose most probable classes overlap less with the truth of the patients left out than before is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import Task, mask_of
from medmargin.errors import DataError
from medmargin.evaluation.ignored import cleared
from medmargin.imaging import to_working
from medmargin.inference.recalibration import slice_image
from medmargin.inference.segmentation import Segmentation
from medmargin.inference.stack import Normalise, SliceStack
from medmargin.uncertainty.bands import band
from medmargin.uncertainty.calibration import (
    Patch,
    PatchSample,
    Rescaling,
    Unchanged,
    Voxels,
    VoxelSample,
    fit_evidence_temperature,
    fit_evidential_rescaling,
    fit_local_scaling,
    fit_temperature,
    fit_vector_scaling,
    with_background,
)

FOLDS = 3
_TIE = 1e-3
_LOST_DICE = 2e-3
_ON_PATCHES = ("local temperature",)
_AT_MOST = 400_000  # voxels a fold keeps

Map = NDArray[Any]


class Fold(NamedTuple):
    """What is kept of a third of the patients."""

    voxels: Voxels
    patches: tuple[Patch, ...]


class Choice(NamedTuple):
    """A rescaling, and -ln p in the band of patients left out, by candidate."""

    rescaling: Any
    held_out: dict[str, float]


class RescalingFit:
    """Takes the answers of held-out patients one by one, and chooses the rescaling.

    Args:
        structures: names, in the order of the probability maps.
        patients: who will come; they are dealt into folds in this order.
        task: of the data, with the label values of its structures; voxels nobody labelled are not drawn.
        exclusive: one rescaling for all classes, or one for each structure.
        local: try a temperature per pixel too (exclusive classes).
        seed: of the draws.
    """

    def __init__(
        self, structures: Sequence[str], patients: Sequence[str], task: Task, *, exclusive: bool, local: bool, seed: int
    ) -> None:
        self.structures, self.exclusive, self.local, self._task = tuple(structures), exclusive, local, task
        self._fold = {patient: index % FOLDS for index, patient in enumerate(patients)}
        classes = len(self.structures) + 1 if exclusive else 2
        count = min(FOLDS, len(self._fold))
        names = ("",) if exclusive else self.structures
        self._samples = {
            name: [VoxelSample(classes, at_most=_AT_MOST, seed=seed + fold) for fold in range(count)] for name in names
        }
        self._patches = [PatchSample(band_only=True, seed=seed + fold) for fold in range(count)]

    def add(self, case: str, patient: str, answer: Segmentation, truth: Map, look: Normalise | None) -> None:
        """Take in one case.

        Args:
            answer: not rescaled, with probabilities.
            truth: [I, J, K] label values of the task, `ignore` too.
            look: of the predictor, for a temperature per pixel.
        """
        fold = self._fold[patient]
        if answer.probabilities is None:
            raise DataError(f"{case}: no probabilities were kept")
        (truth,), labels, ignored = cleared((truth,), answer.labels, self._task.ignore)
        if not self.exclusive:
            for found, probability in zip(answer.structures, answer.probabilities, strict=True):
                inside = mask_of(truth, self._task.members[found.name])
                near = band(inside, mask_of(labels, answer.members.get(found.name, found.label)))
                asked = probability > 0  # elsewhere nothing is drawn, and so nothing is rescaled
                if ignored is not None:
                    asked &= ~ignored
                sample = self._samples[found.name][fold]
                sample.add(case, probability[asked][None], inside[asked].astype(np.uint8), near[asked])
            return
        classes = class_numbers(self.structures, self._task.structures)[truth]
        near = band(truth, labels)
        vacuity = answer.maps.get("vacuity")
        if vacuity is not None:
            vacuity = np.where(vacuity > 0, vacuity, 1)  # no evidence where a straightened grid does not reach
        if ignored is None:
            self._samples[""][fold].add(case, answer.probabilities, classes, near, vacuity)
        else:
            counted = ~ignored
            near &= counted
            self._samples[""][fold].add(
                case, answer.probabilities[:, counted], classes[counted], near[counted],
                None if vacuity is None else vacuity[counted],
            )  # fmt: skip
        if self.local:
            self._offer(case, fold, answer, classes, near, look)

    def choose(self) -> tuple[list[Any], dict[str, dict[str, float]]]:
        """Choose the rescalings, in the order of `Calibration.rescalings`.

        Returns:
            The rescalings, and what every candidate reached: structure ("all classes") -> candidate -> nats.
        """
        found, tried = [], {}
        for name, samples in self._samples.items():
            choice = choose_rescaling(self._folds(samples), local=self.local)
            found.append(choice.rescaling)
            tried[name or "all classes"] = choice.held_out
        return found, tried

    def _folds(self, samples: Sequence[VoxelSample]) -> list[Fold]:
        folds = []
        for sample, patches in zip(samples, self._patches, strict=True):
            try:
                folds.append(Fold(sample.voxels(), patches.patches))
            except DataError:  # no patient of this fold has the structure
                continue
        return folds

    def _offer(
        self, case: str, fold: int, answer: Segmentation, classes: Map, near: Map, look: Normalise | None
    ) -> None:
        """Offer patches of the slices as the network sees them."""
        stack = SliceStack(answer.image, look)
        seen_near = stack.mask(near, answer.image)
        truth = np.zeros(seen_near.shape, np.int64)
        for number in range(1, len(self.structures) + 1):
            truth[stack.mask(classes == number, answer.image)] = number
        given = np.zeros((0, *near.shape)) if answer.probabilities is None else answer.probabilities
        maps = [stack.view(to_working(answer.image.with_voxels(values)).volume.voxels[0]) for values in given]
        for index in np.flatnonzero(seen_near.any(axis=(1, 2))):
            probabilities = with_background(np.stack([values[index] for values in maps]))
            self._patches[fold].add(case, probabilities, slice_image(stack, int(index)), truth[index], seen_near[index])


def choose_rescaling(folds: Sequence[Fold], *, local: bool = False) -> Choice:
    """Choose by patients left out; with fewer than two folds nothing can be left out, and nothing is changed."""
    folds = [fold for fold in folds if fold.voxels.near.any()]
    if len(folds) < 2:
        return Choice(Unchanged(), {})
    candidates = _candidates(folds, local=local)
    held_out = {name: _left_out(fit, folds, on_patches=local) for name, fit in candidates.items()}
    overlaps = {name: _overlaps_left_out(fit, folds) for name, fit in candidates.items() if name not in _ON_PATCHES}
    sound = [name for name in candidates if overlaps.get(name, 1.0) >= overlaps["none"] - _LOST_DICE]
    best = min(held_out[name] for name in sound)
    chosen = next(name for name in sound if held_out[name] <= best * (1 + _TIE))
    return Choice(candidates[chosen](_joined(folds)), held_out)


def class_numbers(order: Sequence[str], structures: Mapping[str, int]) -> NDArray[np.int64]:
    """Table from label value to class: 0 background, then the structures in `order`."""
    numbers = np.zeros(max(structures.values()) + 1, np.int64)
    for number, name in enumerate(order, start=1):
        numbers[structures[name]] = number
    return numbers


def _candidates(folds: Sequence[Fold], *, local: bool) -> dict[str, Callable[[Fold], Rescaling]]:
    found: dict[str, Callable[[Fold], Rescaling]] = {
        "none": lambda fold: Unchanged(),
        "temperature": lambda fold: fit_temperature(_near(fold)).rescaling,
    }
    if folds[0].voxels.vacuity is not None and not local:  # patches do not hold the vacuity to judge it by
        found["evidence temperature"] = lambda fold: fit_evidence_temperature(_near(fold)).rescaling
        found["evidential"] = lambda fold: fit_evidential_rescaling(_near(fold)).rescaling
    found["vector"] = lambda fold: fit_vector_scaling(_near(fold)).rescaling
    if local:
        found["local temperature"] = lambda fold: fit_local_scaling(fold.patches).rescaling
    return found


def _near(fold: Fold) -> Voxels:
    return fold.voxels.take(fold.voxels.near)


def _overlaps_left_out(fit: Callable[[Fold], Rescaling], folds: Sequence[Fold]) -> float:
    """Average `_overlap` over the folds, each rescaled by a fit to the others."""
    return float(np.mean([_overlap(held_out, fit(_others(folds, index))) for index, held_out in enumerate(folds)]))


def _overlap(fold: Fold, rescaling: Rescaling) -> float:
    """Mean Dice of the most probable classes after a rescaling, over the structures that the sampled voxels hold."""
    scaled = fold.voxels.probabilities.copy()
    rescaling.scale(scaled, fold.voxels.vacuity)
    found, truth, weights = scaled.argmax(axis=0), fold.voxels.labels, fold.voxels.weights
    scores = []
    for number in range(1, len(scaled)):
        size = weights[found == number].sum() + weights[truth == number].sum()
        if size:
            scores.append(2 * weights[(found == number) & (truth == number)].sum() / size)
    return float(np.mean(scores)) if scores else 1.0


def _others(folds: Sequence[Fold], left_out: int) -> Fold:
    return _joined([fold for index, fold in enumerate(folds) if index != left_out])


def _left_out(fit: Callable[[Fold], Rescaling], folds: Sequence[Fold], *, on_patches: bool) -> float:
    """Average -ln p of the truth over the bands of all folds, each rescaled by a fit to the others."""
    nats = weight = 0.0
    for index, held_out in enumerate(folds):
        rescaling = fit(_others(folds, index))
        for value, voxels in _on_patches(rescaling, held_out) if on_patches else [_on_voxels(rescaling, held_out)]:
            nats += value * voxels
            weight += voxels
    return nats / weight


def _on_voxels(rescaling: Rescaling, fold: Fold) -> tuple[float, float]:
    near = _near(fold)
    scaled = near.probabilities.copy()
    rescaling.scale(scaled, near.vacuity)
    return near.negative_log_likelihood(scaled), float(near.weights.sum())


def _on_patches(rescaling: Rescaling, fold: Fold) -> list[tuple[float, float]]:
    found = []
    for patch in fold.patches:
        block = np.exp(patch.logits)
        rescaling.scale(block, None, patch.image)
        of_truth = np.take_along_axis(block, patch.labels[None], axis=0)[0][patch.counted]
        found.append((float(-np.log(np.maximum(of_truth, 1e-12)).mean()), float(of_truth.size)))
    return found


def _joined(folds: Sequence[Fold]) -> Fold:
    voxels = [fold.voxels for fold in folds]
    vacuity = [each.vacuity for each in voxels if each.vacuity is not None]
    return Fold(
        Voxels(
            np.concatenate([each.probabilities for each in voxels], axis=1),
            np.concatenate([each.labels for each in voxels]),
            np.concatenate([each.weights for each in voxels]),
            np.concatenate([each.near for each in voxels]),
            np.concatenate(vacuity) if vacuity else None,
        ),
        tuple(patch for fold in folds for patch in fold.patches),
    )
