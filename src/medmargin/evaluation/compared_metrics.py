"""The metrics that results can be compared by: where they stand in an answer, and which direction is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from medmargin.errors import ConfigError

_BAND = "band_"


@dataclass(frozen=True)
class ComparedMetric:
    """One number per case, of every structure or of the whole case.

    Attributes:
        name: as in `evaluate --json`; with "band_" before it, that of the voxels near borders.
        title: for people. higher_is_better: its direction. of_structures: whether every structure has one.
        conventions: keys of the answer's conventions that both results must share.
    """

    name: str
    title: str
    higher_is_better: bool
    of_structures: bool
    conventions: tuple[str, ...] = ()

    def value(self, entry: Mapping[str, Any], structure: str | None) -> float | None:
        """Read the number of one case (an entry of `cases`), None where it does not exist."""
        if self.of_structures:
            value = entry["structures"][structure].get(self.name)
            return abs(value) if self.name == "relative_volume_error" and value is not None else value
        figures = entry["uncertainty"]
        if self.name.startswith(_BAND):
            return figures["band"].get(self.name.removeprefix(_BAND))
        return figures.get(self.name)


def _structure(name: str, title: str, higher: bool, *conventions: str) -> ComparedMetric:
    return ComparedMetric(name, title, higher, True, ("empty", *conventions))


def _uncertainty(name: str, title: str, higher: bool) -> list[ComparedMetric]:
    keys = (name, "ece_bins", "class_probabilities")
    return [
        ComparedMetric(name, f"{title}, all voxels", higher, False, keys),
        ComparedMetric(_BAND + name, f"{title}, near borders", higher, False, (*keys, "band")),
    ]


METRICS = {
    metric.name: metric
    for metric in (
        _structure("dice", "Dice", True),
        _structure("iou", "IoU", True),
        _structure("nsd", "NSD", True, "nsd", "nsd_tolerance_mm", "nsd_tolerance_px"),
        _structure("hd95_mm", "HD95 (mm)", False, "hd95"),
        _structure("hd95_px", "HD95 (px)", False, "hd95"),
        _structure("assd_mm", "ASSD (mm)", False, "assd"),
        _structure("assd_px", "ASSD (px)", False, "assd"),
        _structure("relative_volume_error", "Size of the relative volume error", False, "relative_volume_error"),
        *_uncertainty("ece", "Calibration error (ECE)", False),
        *_uncertainty("brier", "Brier score", False),
        *_uncertainty("nll", "NLL (nats)", False),
        *_uncertainty("auroc", "Finds errors (AUROC)", True),
        *_uncertainty("aurc", "AURC", False),
    )
}


def chosen_metrics(names: Sequence[str] | None, entry: Mapping[str, Any]) -> list[ComparedMetric]:
    """Look metrics up by name; without names Dice, NSD, HD95 in the unit of the case, ECE and AUROC near borders.

    Raises:
        ConfigError: an unknown name; the message lists the known ones.
    """
    unit = "px" if "volumes_px" in entry else "mm"
    chosen = []
    for name in dict.fromkeys(names or ("dice", "nsd", f"hd95_{unit}", "band_ece", "band_auroc")):
        if name not in METRICS:
            near = get_close_matches(name, METRICS, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"--metric '{name}' is none of {', '.join(METRICS)}.{guess}")
        chosen.append(METRICS[name])
    return chosen
