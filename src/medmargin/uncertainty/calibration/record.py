"""`Calibration`: what held-out patients taught about a run, as it stands in `calibration.json` and is used to predict.

The order at prediction is that of the fit: first the probabilities are rescaled, then masks, regions and volumes are
taken. The guarantees hold for answers of the same run and the same estimator, and for patients like those of the data.
They are exact where the patients who carry them did not take part in fitting the rescaling (`patients.shared` false).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medmargin.errors import CheckpointError, ConfigError, DataError
from medmargin.storage import write_json
from medmargin.uncertainty.calibration.classes import slabs, with_background
from medmargin.uncertainty.calibration.distance_margins import DistanceMargins
from medmargin.uncertainty.calibration.evidence_temperature import EvidenceTemperature
from medmargin.uncertainty.calibration.evidential_rescaling import EvidentialRescaling
from medmargin.uncertainty.calibration.local_scaling import LocalScaling
from medmargin.uncertainty.calibration.mask_thresholds import ThresholdMargins
from medmargin.uncertainty.calibration.temperature import Block, Temperature, Unchanged, VectorScaling
from medmargin.uncertainty.calibration.volume_intervals import VolumeScale

AnyRescaling = Annotated[
    Unchanged | Temperature | VectorScaling | EvidentialRescaling | EvidenceTemperature | LocalScaling,
    Field(discriminator="kind"),
]
Figure = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StructureGuarantees(_Part):
    """What is promised for one structure; None where it was not asked for or was refused (`Calibration.refused`)."""

    thresholds: ThresholdMargins | None = None
    distances: DistanceMargins | None = None
    volume: VolumeScale | None = None


class Patients(_Part):
    """Number of patients that the rescaling was fitted on, and that carry the guarantees.

    Attributes:
        shared: whether some did both; guarantees are then approximate.
    """

    rescaling: int = Field(ge=0)
    guarantees: int = Field(ge=0)
    shared: bool


class Figures(_Part):
    """Measured on the calibration data: -ln p (nats) and ECE, of all voxels and of the band; None: not measured."""

    nll: Figure | None = None
    ece: Figure | None = None
    band_nll: Figure | None = None
    band_ece: Figure | None = None


class Calibration(_Part):
    """A run's calibration.

    Attributes:
        format: version of the file's layout.
        level: that intervals and regions were asked for.
        estimator: name of the uncertainty estimator whose answers were calibrated.
        structures: names, in the order of the probability maps.
        exclusive: whether a voxel belongs to one class only (background included), or every structure has a probability
            of its own.
        rescalings: one for all classes, or one for each structure (as the two classes outside and inside).
        guarantees: structure -> what is promised. refused: what -> why there is no promise.
        patients: how many. data: name and SHA-256 of the calibration data, and its cases.
        before, after: figures on the calibration data, without and with the rescaling.
    """

    format: Literal[1] = 1
    level: float = Field(gt=0, lt=1)
    estimator: str
    structures: tuple[str, ...] = Field(min_length=1)
    exclusive: bool
    rescalings: tuple[AnyRescaling, ...]
    guarantees: dict[str, StructureGuarantees] = {}
    refused: dict[str, str] = {}
    patients: Patients
    data: dict[str, Any]
    before: Figures = Figures()
    after: Figures = Figures()

    @model_validator(mode="after")
    def _consistent(self) -> Calibration:
        expected = 1 if self.exclusive else len(self.structures)
        if len(self.rescalings) != expected:
            raise ValueError(f"rescalings: {len(self.rescalings)} given, {expected} expected")
        if strange := set(self.guarantees) - set(self.structures):
            raise ValueError(f"guarantees: unknown structure {min(strange)}")
        classes = len(self.structures) + 1 if self.exclusive else 2
        for rescaling in self.rescalings:
            if isinstance(rescaling, VectorScaling) and len(rescaling.slopes) != classes:
                raise ValueError(f"rescalings: {len(rescaling.slopes)} slopes for {classes} classes")
            if isinstance(rescaling, LocalScaling) and rescaling.classes != classes:
                raise ValueError(f"rescalings: a local temperature of {rescaling.classes} classes, {classes} expected")
        if not self.exclusive and any(
            isinstance(each, EvidentialRescaling | EvidenceTemperature) for each in self.rescalings
        ):
            raise ValueError("rescalings: evidence belongs to exclusive classes")
        return self

    def require_estimator(self, name: str) -> None:
        """Refuse answers of another estimator than the calibrated one.

        Raises:
            ConfigError: the names differ.
        """
        if name != self.estimator:
            raise ConfigError(
                f"the run was calibrated for the uncertainty '{self.estimator}', not for '{name}'. Predict with "
                f"'{self.estimator}', or calibrate the run again with '{name}'."
            )

    def apply_probabilities(
        self,
        probabilities: Block,
        vacuity: Block | None = None,
        image: Block | None = None,
        *,
        out: Block | None = None,
    ) -> Block:
        """Rescale probabilities, slab by slab along their first spatial axis; some 100 MB beside input and output.

        Args:
            probabilities: [K, *spatial] background first or, of the structures alone, [K - 1, *spatial]; a whole image
                or any part of it, in memory or mapped.
            vacuity: [*spatial], needed by rescalings of evidence.
            image: [C, *spatial] slices [H, W], needed by a local temperature.
            out: where to write, e.g. `probabilities` itself; a new array where None.

        Returns:
            The rescaled maps, in the shape given.

        Raises:
            DataError: maps that do not fit, or that are missing.
        """
        structures = len(self.structures)
        if len(probabilities) not in ((structures, structures + 1) if self.exclusive else (structures,)):
            raise DataError(f"{len(probabilities)} probability maps for a calibration of {structures} structures")
        for what, beside in (("vacuity", vacuity), ("image", None if image is None else image[0])):
            if beside is not None and beside.shape != probabilities.shape[1:]:
                raise DataError(f"{what} of shape {beside.shape} for probabilities {probabilities.shape}")
        result = np.empty(probabilities.shape, np.float32) if out is None else out
        for slab in self._slabs(probabilities.shape):
            part = None if vacuity is None else np.asarray(vacuity[slab], np.float32)
            picture = None if image is None else np.asarray(image[:, slab], np.float32)
            self._rescale(probabilities[:, slab], part, picture, result[:, slab])
        return result

    def apply_vacuity(self, probabilities: Block, vacuity: Block) -> Block:
        """Compute the vacuity after rescaling, from both maps before it; the same where no evidence is scaled.

        Args:
            probabilities: as in `apply_probabilities`. vacuity: [*spatial].

        Returns:
            [*spatial] in (0, 1].
        """
        rescaling = self.rescalings[0]
        if not isinstance(rescaling, EvidentialRescaling):
            return vacuity
        result = np.empty(vacuity.shape, np.float32)
        for slab in slabs(probabilities.shape):
            result[slab] = rescaling.rescale(self._classes(probabilities[:, slab]), vacuity[slab])
        return result

    def apply_volume(self, structure: str, low: float, estimate: float, high: float) -> tuple[float, float]:
        """Calibrate a volume interval: (low, high) in the unit given, around the estimate.

        Raises:
            ConfigError: there is no guarantee for this structure's volume; the message says why.
        """
        return self._promised(structure, "volume").interval(low, estimate, high)

    def threshold_regions(self, structure: str, probabilities: Block, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Mark [*spatial] 0 surely outside, 1 undecided, 2 surely inside, by rescaled probabilities; any part.

        Raises:
            ConfigError: there is no such guarantee for this structure; the message says why.
        """
        return self._promised(structure, "thresholds").regions(probabilities, mask)

    def distance_regions(self, structure: str, mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.uint8]:
        """Mark [*spatial] 0 surely outside, 1 undecided, 2 surely inside, by distance to the border; a whole image.

        Raises:
            ConfigError: there is no such guarantee for this structure; the message says why.
        """
        return self._promised(structure, "distances").regions(mask, spacing)

    def _promised(self, structure: str, kind: str) -> Any:
        found = getattr(self.guarantees.get(structure, StructureGuarantees()), kind)
        if found is None:
            reason = self.refused.get(f"{structure}/{kind}", "it was not calibrated")
            raise ConfigError(f"no guarantee for the {kind} of {structure}: {reason}")
        return found

    def _slabs(self, shape: Sequence[int]) -> Sequence[slice]:
        """Pieces of the first spatial axis; a picture is one piece for a local temperature, which looks around."""
        if len(shape) == 3 and any(each.kind == "local temperature" for each in self.rescalings):
            return [slice(None)]
        return list(slabs(shape))

    def _rescale(self, part: Block, vacuity: Block | None, image: Block | None, target: Block) -> None:
        if self.exclusive:
            block = self._classes(part)
            self.rescalings[0].scale(block, vacuity, image)
            target[:] = block[-len(part) :]
            return
        for channel, rescaling, written in zip(part, self.rescalings, target, strict=True):
            block = with_background(channel[None])
            rescaling.scale(block, vacuity, image)
            written[:] = block[1]

    def _classes(self, part: Block) -> Block:
        """A copy of exclusive classes with the background."""
        return np.array(part, np.float32) if len(part) > len(self.structures) else with_background(part)


def write_calibration(path: Path | str, calibration: Calibration) -> None:
    """Write `calibration.json`.

    Raises:
        BudgetError: the file cannot be written.
    """
    write_json(path, calibration.model_dump(mode="json"))


def read_calibration(path: Path | str) -> Calibration:
    """Read `calibration.json`.

    Raises:
        CheckpointError: it cannot be read or is damaged; the message names the field.
    """
    path = Path(path)
    try:
        return Calibration.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Calibrate the run again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise CheckpointError(
            f"{path}: {field}: {first['msg']}. The file is damaged or of a newer version; calibrate the run again."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}). The file is damaged; calibrate the run again.") from error
