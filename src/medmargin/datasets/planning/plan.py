"""`Plan`: everything a training engine must know of a data set, as plain values that can be stored and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmargin.datasets.planning.memory import prediction_bytes, training_bytes
from medmargin.datasets.planning.normalisation import Normalisation
from medmargin.datasets.planning.unet import Shape, UNetShape
from medmargin.errors import ConfigError

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Resampling:
    """How images get the plan's spacing.

    Attributes:
        image_order, label_order: spline order of image and one-hot label (3 and 1).
        slicewise_beyond: images and targets whose coarsest spacing is more than this many times the finest are
            resampled slice by slice, with the order `through_order` between slices; None: always in one piece.
        through_order: spline order along the slice axis of such images (0: nearest).
    """

    image_order: int = 3
    label_order: int = 1
    slicewise_beyond: float | None = 3.0
    through_order: int = 0


@dataclass(frozen=True)
class Configuration:
    """One network and the images it sees. Tuples run along the axes in network order, (H, W) or (D, H, W).

    Attributes:
        name: "2d", "3d_fullres", "3d_lowres" or "3d_cascade".
        spacing: voxel size in the task's unit.
        median_shape: of the images at that spacing, voxels.
        patch: input of the network, voxels. batch_size: samples per step.
        strides, kernels, features: per stage, finest first.
        channels: of the input; the cascade sees one more per structure. classes: of the answer, with background.
        previous: configuration whose answer is shown to this one; None: only the image is.
        turns_in_plane_only: the patch is so flat that augmentation turns it within its slices only.
        reasons: choice -> why, in one sentence.
    """

    __pydantic_config__ = _STRICT

    name: str
    spacing: tuple[float, ...]
    median_shape: tuple[int, ...]
    patch: tuple[int, ...]
    batch_size: int
    strides: tuple[Shape, ...]
    kernels: tuple[Shape, ...]
    features: tuple[int, ...]
    channels: int
    classes: int
    previous: str | None = None
    turns_in_plane_only: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def dims(self) -> int:
        """Number of spatial dimensions."""
        return len(self.patch)

    @property
    def network(self) -> UNetShape:
        """The plain U-Net of this configuration, for counting."""
        return UNetShape(self.strides, self.kernels, self.features, self.channels, self.classes)

    def training_bytes(self, precision: str) -> int:
        """Estimate the memory of a training step; see `memory`."""
        return training_bytes(self.network, self.patch, self.batch_size, precision)

    def prediction_bytes(self, precision: str, *, slices: int = 1) -> int:
        """Estimate the memory of predicting the median image with all class scores held; `slices` of it in 2-D."""
        whole = prod(max(side, window) for side, window in zip(self.median_shape, self.patch, strict=True))
        return prediction_bytes(self.network, self.patch, whole * (slices if self.dims == 2 else 1), precision)


@dataclass(frozen=True)
class Plan:
    """What to make of a data set.

    Attributes:
        dataset: its name. cases: how many were measured.
        scale: "paper" or "laptop". memory: bytes the patches were fitted to. precision: "mixed" or "float32".
        unit: of spacings, "mm" or "px".
        axis_order: indices of the working axes (R, A, S) in network order (D, H, W); in 2-D the first is left out.
        slices: of the median image along its first axis; 1 for pictures.
        crop: images are cropped to the box around their non-zero voxels.
        normalisation: one per channel, in the task's order.
        configurations: what can be trained. chosen: name of the one that is, unless another is asked for.
        reasons: choice -> why, in one sentence.
    """

    __pydantic_config__ = _STRICT

    dataset: str
    cases: int
    scale: str
    memory: int
    precision: str
    unit: str
    axis_order: tuple[int, int, int]
    slices: int
    crop: bool
    normalisation: tuple[Normalisation, ...]
    resampling: Resampling
    configurations: tuple[Configuration, ...]
    chosen: str
    reasons: Mapping[str, str] = field(default_factory=dict)
    format: int = 1

    def configuration(self, name: str | None = None) -> Configuration:
        """Look up a configuration; None: the chosen one.

        Raises:
            ConfigError: the plan has none of that name.
        """
        wanted = self.chosen if name is None else name
        for configuration in self.configurations:
            if configuration.name == wanted:
                return configuration
        names = ", ".join(configuration.name for configuration in self.configurations)
        raise ConfigError(f"configuration '{wanted}': this plan of '{self.dataset}' has {names}")

    def to_dict(self) -> dict[str, Any]:
        """Give plain types only: what `to_json` writes."""
        plain: dict[str, Any] = json.loads(self.to_json())
        return plain

    def to_json(self) -> str:
        """Write the plan as JSON."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: fields are missing, unknown or of the wrong type, or the chosen configuration is not there.
        """
        try:
            plan: Plan = _CONTENT.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "file"
            raise ConfigError(f"plan: {where}: {first['msg']} ({error.error_count()} faults in all)") from error
        plan.configuration()
        return plan

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Plan:
        """Take what `to_dict` gave; see `from_json`."""
        return cls.from_json(json.dumps(plain))

    @classmethod
    def read(cls, path: Path | str) -> Plan:
        """Read a file that holds what `to_json` wrote.

        Raises:
            ConfigError: it cannot be read, or see `from_json`; names the file.
        """
        try:
            return cls.from_json(Path(path).read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: the plan cannot be read ({error.strerror})") from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


_CONTENT: TypeAdapter[Plan] = TypeAdapter(Plan)
