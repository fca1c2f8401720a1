"""How intensities become network input. Isensee et al. 2021, supplementary note 2, "Intensity normalization"."""

from __future__ import annotations

from dataclasses import dataclass

from medmargin.datasets.planning.fingerprint import Fingerprint

SCHEMES = ("ct", "zscore", "none")
_KEPT = 0.75  # cropping to less than this share of the image makes the mask of its non-zero voxels count


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of one channel.

    Attributes:
        channel: its name.
        scheme: "ct": clip to [low, high], then (value - mean) / standard_deviation, all of the data set's foreground;
            "zscore": mean and deviation of each image; "none": values as they are.
        within_mask: z-score over the non-zero voxels only, and 0 outside.
        low, high, mean, standard_deviation: in the files' unit; None where each image has its own.
    """

    channel: str
    scheme: str
    within_mask: bool = False
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    standard_deviation: float | None = None


def normalisation_of(
    channel: str, fingerprint: Fingerprint, *, scheme: str | None = None, within_mask: bool | None = None
) -> tuple[Normalisation, str]:
    """Choose the normalisation of one channel, and say why in one sentence.

    Args:
        scheme, within_mask: the user's choice; None: by modality, and by what cropping leaves of the median image.
    """
    task = fingerprint.task
    is_ct = channel.casefold() == "ct" or (task.modality.upper() == "CT" and len(task.channels) == 1)
    reason = "Hounsfield units mean the same in every scan" if is_ct else "its values mean nothing across images"
    if scheme is not None:
        reason = "asked for"
    scheme = scheme or ("ct" if is_ct else "zscore")
    if scheme == "ct":
        found = fingerprint.intensities[channel]
        chosen = Normalisation(
            channel, "ct", low=found.percentile_low, high=found.percentile_high, mean=found.mean,
            standard_deviation=found.standard_deviation,
        )  # fmt: skip
        how = "clipped to the foreground's 0.5 and 99.5 percentiles over all cases, then z-scored with its statistics"
        return chosen, f"{how}: {reason}"
    if scheme == "none":
        return Normalisation(channel, "none"), f"values as they are: {reason}"
    masked = fingerprint.kept < _KEPT if within_mask is None else within_mask
    share = f"cropping to non-zero voxels keeps {fingerprint.kept:.0%} of the median image"
    where = "over its non-zero voxels" if masked else "over all voxels"
    return Normalisation(channel, "zscore", masked), f"each image z-scored {where} ({share}): {reason}"
