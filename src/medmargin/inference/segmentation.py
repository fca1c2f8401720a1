"""`Segmentation`: the answer of every predictor, on the grid of the image it was asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import mask_of
from medmargin.errors import ConfigError
from medmargin.imaging import Volume

if TYPE_CHECKING:
    from medmargin.inference.margins import Margins
    from medmargin.inference.trust import CaseTrust

PROMPTS_FROM_USER = "user"
PROMPTS_FROM_LABELS = "labels (evaluation only)"
NO_PROMPTS = "none"
SINGLE_ANSWER = "entropy of a single answer"


@dataclass(frozen=True)
class StructureResult:
    """One structure's volume with its interval, and the confidence in its mask.

    Attributes:
        name, label: of the structure; its value in the label map.
        voxels: voxels the label map gives to the structure. low_voxels, high_voxels: interval at `level`.
        volume_ml, low_ml, high_ml: the same in millilitres, low <= volume <= high; None where `reason` says why.
        level: share of the model's own volume distribution inside the interval or, where it is `guaranteed`, of new
            patients whose volume lies in it.
        confidence: expected Dice of the mask under the model's voxel probabilities, in [0, 1].
        reason: why there are no millilitres; empty where there are.
        guaranteed: whether held-out patients stand for the interval.
        predicted_dice: Dice to expect of the mask, learned from held-out patients. dice_at_least: its lower bound. None
            where the run is not calibrated, or could not learn it.
    """

    name: str
    label: int
    voxels: int
    low_voxels: float
    high_voxels: float
    volume_ml: float | None
    low_ml: float | None
    high_ml: float | None
    level: float
    confidence: float
    reason: str = ""
    guaranteed: bool = False
    predicted_dice: float | None = None
    dice_at_least: float | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels, probabilities and uncertainty maps of one image.

    Attributes:
        labels: [I, J, K] unsigned integers on the grid of `image`, 0 background.
        uncertainty: name -> [I, J, K] float32 in nats: "total", and "aleatoric" and "epistemic" with
            total = aleatoric + epistemic where the predictor asked more than once. Where several structures were
            were sought one by one, the most uncertain one speaks for the voxel.
        structures: one result per structure, in the order of the prompts or of the network's classes.
        image: the image, for its grid and format.
        probabilities: [S, I, J, K] float32 in the order of `structures`, or None where they were not kept. Prompted
            structures stand each on its own (they may overlap and need not add up to 1).
        prompts_source: "user", "labels (evaluation only)", or "none" where nothing was pointed at.
        uncertainty_source: what the uncertainty was computed from.
        forward_passes: answers averaged per object.
        calibrated: whether held-out patients have calibrated intervals and probabilities.
        warnings: what the user should know, one sentence each.
        maps: further maps [I, J, K] in [0, 1], where the network gives them: "vacuity" (share of the answer that no
            evidence backs), "edge" (probability of an edge) and "edge_uncertainty".
        flag_threshold: vacuity above which a voxel is flagged for a look, or None where training has not set one.
        margins: where structures surely are and are not, see `margin`; None without calibration.
        trust: what to expect of the whole case; None without calibration.
        members: structure -> the label values that lie in it, where structures overlap; empty: its own value only.
    """

    labels: NDArray[np.unsignedinteger]
    uncertainty: dict[str, NDArray[np.float32]]
    structures: list[StructureResult]
    image: Volume = field(repr=False)
    probabilities: NDArray[np.float32] | None = None
    prompts_source: str = PROMPTS_FROM_USER
    uncertainty_source: str = SINGLE_ANSWER
    forward_passes: int = 1
    calibrated: bool = False
    warnings: tuple[str, ...] = ()
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    flag_threshold: float | None = None
    margins: Margins | None = field(default=None, repr=False)
    trust: CaseTrust | None = field(default=None, repr=False)
    members: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def names(self) -> dict[int, str]:
        """Label value -> structure name."""
        return {structure.label: structure.name for structure in self.structures}

    @property
    def with_margin(self) -> list[StructureResult]:
        """The structures that have a guaranteed margin."""
        known = () if self.margins is None else self.margins.known
        return [structure for structure, is_known in zip(self.structures, known, strict=False) if is_known]

    def mask(self, structure: StructureResult) -> NDArray[np.bool_]:
        """Tell where [I, J, K] a structure of this answer is shown."""
        return mask_of(self.labels, self.members.get(structure.name, structure.label))

    def margin(self, structure: str) -> NDArray[np.uint8]:
        """Mark [I, J, K] where a structure surely is not (0), may be (1) and surely is (2).

        Raises:
            ConfigError: no such structure, or calibration guarantees nothing for it.
        """
        for index, found in enumerate(self.structures):
            if found.name == structure and self.margins is not None and self.margins.known[index]:
                return self.margins.regions(index, self.mask(found))
        raise ConfigError(
            f"no margin for '{structure}': structures with one are {', '.join(s.name for s in self.with_margin) or '-'}"
        )

    def summary(self) -> dict[str, Any]:
        """Describe the answer without its maps, ready for JSON."""
        return {
            "prompts": self.prompts_source,
            "calibrated": self.calibrated,
            "uncertainty": {"source": self.uncertainty_source, "forward_passes": self.forward_passes, "unit": "nats"},
            "flagged": self._flagged(),
            "structures": [asdict(structure) for structure in self.structures],
            **_or_reason("trust", self.trust and self.trust.summary(), "the run is not calibrated"),
            "warnings": list(self.warnings),
        }

    def _flagged(self) -> dict[str, Any] | None:
        if self.flag_threshold is None or "vacuity" not in self.maps:
            return None
        voxels = int((self.maps["vacuity"] > self.flag_threshold).sum())
        each = self.image.grid.voxel_volume_ml if self.image.dims == 3 else None
        volume = None if each is None else voxels * each
        return {"threshold": self.flag_threshold, "voxels": voxels, "volume_ml": volume}

    def save(self, folder: Path | str, name: str, *, probabilities: bool = False) -> list[Path]:
        """Write the answer in the format of the image; see `medmargin.inference.output`.

        Args:
            folder: created where it does not exist.
            name: of the case; every file starts with it.
            probabilities: also write a probability map per structure.

        Returns:
            The files written.

        Raises:
            ConfigError: probabilities are asked for and were not kept.
            BudgetError: the folder cannot be written or the disk is full; nothing of this case stays behind.
        """
        from medmargin.inference.output import save_segmentation

        return save_segmentation(self, Path(folder), name, probabilities=probabilities)


def _or_reason(name: str, found: Any, reason: str) -> dict[str, Any]:
    return {name: found} if found is not None else {name: None, f"{name}_reason": reason}
