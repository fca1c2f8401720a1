"""`OutOfDistribution`: is this image of the kind the network has learned from? Answered without any label.

Three groups are judged apart: intensity, geometry, and the network's own description of the image where there is one.
A group's distance is that of its furthest feature from the training median in robust scales (MAD), or the Mahalanobis
distance of the description (`shrunk_covariance`). Each training patient has such a distance from the others; the share
of them at least as far as the new image is its p-value (1 is added to both counts). An image is flagged when the p of
a group is at most rate / groups (Bonferroni): then at most `rate` of new patients of the same kind are flagged.

A group can only fall that low with n >= groups / rate - 1 training patients. With fewer, an image further out than all
of them is flagged all the same, and the answer states the larger rate at which that happens by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medmargin.errors import ConfigError, DataError
from medmargin.uncertainty.trust.image_measures import ImageFeatures, kind_of, said, shown
from medmargin.uncertainty.trust.shrunk_covariance import ShrunkCovariance
from medmargin.uncertainty.trust.stored import Stored

Array = NDArray[np.float64]

FEWEST_PATIENTS = 5
EMBEDDING = "network description"
_MEASURED_GROUPS = ("intensity", "geometry")
_NAMED_FEATURES = 2


@dataclass(frozen=True)
class Familiarity:
    """How familiar an image is.

    Attributes:
        flagged: whether it is unlike the training images.
        rate: share of familiar images that are flagged by mistake, at the most.
        p_values: group -> share of training patients that are at least as unusual, in (0, 1].
        group: the least familiar group.
        deviations: the two features of that group that deviate most, in words.
        message: the answer in one sentence.
        notes: what could not be compared, and why `rate` is larger than the one asked for.
    """

    flagged: bool
    rate: float
    p_values: Mapping[str, float]
    group: str
    deviations: tuple[str, ...]
    message: str
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Give the answer as an object for JSON."""
        return {
            "flagged": self.flagged,
            "false_alarm_rate": self.rate,
            "p_values": dict(self.p_values),
            "group": self.group,
            "deviations": list(self.deviations),
            "message": self.message,
            "notes": list(self.notes),
        }


class Reference(Stored):
    """One measured feature over the training images: median, robust scale, smallest and largest value."""

    centre: float
    scale: float = Field(gt=0)
    low: float
    high: float


class OutOfDistribution(Stored):
    """Fitted on training images by `fit`; `judge` is then asked about every new image.

    Attributes:
        references: feature -> where it lies in training.
        distances: group -> distance of each training patient from the others, rising.
        embedding: the network's descriptions of the training images, where they were given.
    """

    references: dict[str, Reference] = Field(min_length=1)
    distances: dict[str, list[float]] = Field(min_length=1)
    embedding: ShrunkCovariance | None = None

    @classmethod
    def fit(cls, images: Sequence[ImageFeatures], patients: Sequence[str]) -> OutOfDistribution:
        """Learn what training images are like.

        Args:
            images: features of training images, all with an embedding of one size or none.
            patients: patient of each image; a patient counts once, with the most unusual image.

        Raises:
            DataError: fewer than 5 patients, a feature is not finite, or embeddings are missing or of several sizes.
        """
        if len(images) != len(patients):
            raise DataError(f"{len(images)} training images but {len(patients)} patients; expected one for each")
        names, group = np.unique(np.asarray(patients), return_inverse=True)
        if len(names) < FEWEST_PATIENTS:
            raise DataError(
                f"out-of-distribution check: {len(names)} training patients; expected at least {FEWEST_PATIENTS}, and "
                "59 for a false alarm rate of 5 % with three groups"
            )
        table, features = _table(images)
        groups = _groups(features)
        vectors = _vectors(images)
        found = {name: np.zeros(len(names)) for name in (*groups, *([] if vectors is None else [EMBEDDING]))}
        for patient in range(len(names)):
            own = group == patient
            others = _references(table[~own], features)
            for name, columns in groups.items():
                found[name][patient] = max(_distance(row, features, columns, others) for row in table[own])
            if vectors is not None:
                apart = ShrunkCovariance.fit(vectors[~own])
                found[EMBEDDING][patient] = max(apart.distance(vector) for vector in vectors[own])
        return cls(
            references=_references(table, features),
            distances={name: np.sort(values).tolist() for name, values in found.items()},
            embedding=None if vectors is None else ShrunkCovariance.fit(vectors),
        )

    def judge(self, image: ImageFeatures, *, rate: float = 0.05) -> Familiarity:
        """Judge a new image.

        Args:
            image: its features; a feature or embedding that training lacks is not compared, and the answer notes what
                training had and this image lacks.
            rate: share of familiar images that may be flagged by mistake, in (0, 1).

        Raises:
            ConfigError: the rate is not between 0 and 1.
            DataError: another number of channels, a feature that is not finite, or an embedding of another size.
        """
        if not 0 < rate < 1:
            raise ConfigError(f"false alarm rate {rate}; expected a number between 0 and 1")
        deviations, distances, notes = self._compare(image)
        p_values = {name: _p_value(self.distances[name], distance) for name, distance in distances.items()}
        group = min(p_values, key=lambda name: (p_values[name], -distances[name]))
        smallest = 1 / (len(next(iter(self.distances.values()))) + 1)
        limit, attained = max(rate / len(p_values), smallest), max(rate, len(p_values) * smallest)
        if attained > rate:
            patients = len(next(iter(self.distances.values())))
            needed = int(np.ceil(len(p_values) / rate - 1 - 1e-9))
            notes.append(f"{rate:.0%} false alarms need {needed} training patients, found {patients}")
        words = tuple(deviations[group])
        flagged = p_values[group] <= limit * (1 + 1e-9)
        return Familiarity(flagged, min(attained, 1.0), p_values, group, words, _message(flagged, words), tuple(notes))

    def _compare(self, image: ImageFeatures) -> tuple[dict[str, list[str]], dict[str, float], list[str]]:
        """Measure the distance of every group, and put its most deviating features into words."""
        for name, value in image.values.items():
            if not np.isfinite(value):
                raise DataError(f"feature '{name}' of the image is {value}; expected a finite number")
        channels = {name for name in {*self.references, *image.values} if name.startswith("percentile 50")}
        if not channels <= self.references.keys() & image.values.keys():
            raise DataError("the image has another number of channels than the training images; give the same channels")
        missing = [name for name in self.references if name not in image.values]
        notes = [f"not compared, because this image does not have it: {name}" for name in missing]
        deviations: dict[str, list[str]] = {}
        distances: dict[str, float] = {}
        for group, names in _groups(list(self.references)).items():
            z = {name: _deviation(image.values[name], self.references[name]) for name in names if name in image.values}
            distances[group] = max(1.0, *z.values()) if z else 1.0
            furthest = sorted((name for name in z if z[name] > 1), key=lambda name: -z[name])[:_NAMED_FEATURES]
            deviations[group] = [_in_words(name, image.values[name], self.references[name]) for name in furthest]
        if self.embedding is not None and image.embedding is None:
            notes.append("not compared, because it was not given: the network's description of the image")
        elif self.embedding is not None and image.embedding is not None:
            vector = image.embedding
            if len(vector) != len(self.embedding.centre):
                expected = len(self.embedding.centre)
                raise DataError(f"embedding of {len(vector)} numbers; expected {expected}, as in training")
            distances[EMBEDDING] = self.embedding.distance(vector)
            most = self.distances[EMBEDDING][-1]
            deviations[EMBEDDING] = [
                f"the network describes it at a distance of {distances[EMBEDDING]:.2g} from the training images, which "
                f"lie up to {most:.2g} from each other"
            ]
        return deviations, distances, notes


def _table(images: Sequence[ImageFeatures]) -> tuple[Array, list[str]]:
    """Stack the features that every training image has: [N, F]."""
    features = [name for name in images[0].values if all(name in image.values for image in images)]
    if len({sum(name.startswith("percentile 50") for name in image.values) for image in images}) > 1:
        raise DataError("training images have different numbers of channels; expected the same in all")
    table = np.array([[image.values[name] for name in features] for image in images], np.float64)
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise DataError(f"training image {row}: feature '{features[column]}' is not finite")
    return table, features


def _vectors(images: Sequence[ImageFeatures]) -> Array | None:
    sizes = {None if image.embedding is None else len(image.embedding) for image in images}
    if len(sizes) > 1:
        raise DataError(f"training images: embeddings of sizes {sorted(map(str, sizes))}; expected one size or none")
    return None if sizes == {None} else np.stack([image.embedding for image in images if image.embedding is not None])


def _groups(features: Sequence[str]) -> dict[str, list[str]]:
    found = {group: [name for name in features if kind_of(name).group == group] for group in _MEASURED_GROUPS}
    return {group: names for group, names in found.items() if names}


def _references(table: Array, features: Sequence[str]) -> dict[str, Reference]:
    centre = np.median(table, axis=0)
    mad = 1.4826 * np.median(np.abs(table - centre), axis=0)
    low, high = table.min(axis=0), table.max(axis=0)
    return {
        name: Reference.model_construct(
            centre=float(centre[index]),
            scale=max(float(mad[index]), kind_of(name).resolution),
            low=float(low[index]),
            high=float(high[index]),
        )
        for index, name in enumerate(features)
    }


def _distance(row: Array, features: Sequence[str], names: Sequence[str], references: Mapping[str, Reference]) -> float:
    """Distance of the furthest feature; within one scale of the median images are not told apart."""
    values = dict(zip(features, row, strict=True))
    return max(1.0, *(_deviation(values[name], references[name]) for name in names))


def _deviation(value: float, reference: Reference) -> float:
    return abs(value - reference.centre) / reference.scale


def _p_value(distances: Sequence[float], distance: float) -> float:
    further = len(distances) - int(np.searchsorted(distances, distance - 1e-9))
    return (1 + further) / (1 + len(distances))


def _in_words(name: str, value: float, reference: Reference) -> str:
    low, high = shown(name, reference.low), shown(name, reference.high)
    return f"{said(name, value)}; in training images {low if low == high else f'{low} to {high}'}"


def _message(flagged: bool, words: Sequence[str]) -> str:
    if not flagged:
        return "The image is like those the network has learned from."
    return f"The image is unlike those the network has learned from: {', and '.join(words)}."
