"""Memory before the work starts: what a prediction will need, and the batches that fit.

The figures per network are an upper envelope, measured as peak resident memory on one CPU thread without gradients:
encoding one image took 244 MB with LiteMedSAM (256 px), 126 MB with EfficientViT-SAM (256 px), 230 and 1740 MB with SAM
ViT-B (512 and 1024 px), 4 to 16 MB with the laptop network (64 and 128 px); decoding one prompt took 26 MB on a 64 x 64
embedding of width 256, and 2 to 6 MB in the laptop network.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medmargin.errors import BudgetError, ConfigError
from medmargin.imaging import Volume

try:
    import resource
except ImportError:  # Windows keeps no such account
    resource = None  # type: ignore[assignment]

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
TARGET = 4 * 2**30
"""Bytes aimed at where no limit is given."""
_TYPICAL_PROCESS = 500 * 2**20  # bytes of a process that has loaded torch and a laptop network
_WORKSPACE = 128 * 2**20  # bytes that libraries take for themselves at the first call
_MOST_IMAGES, _MOST_PROMPTS, _MOST_EMBEDDINGS = 16, 16, 256  # beyond this a processor gets slower, not faster
_STEM_SIDE = 256  # up to this side encoders keep a full-resolution stem, and embeddings grow with the image
_ENCODER_BYTES, _WIDE_ENCODER_BYTES = 4096, 1650  # per network pixel up to the stem side, and beyond it
_DECODER_BYTES, _EMBEDDING_BYTES = 512, 128  # per network pixel up to the stem side
_WORK_BYTES = 40  # per picture pixel: one object's maps while its members are averaged
_CLASS_INPUT_BYTES = 16  # per network pixel and class: logits at the input's size, mirrored back, and an edge map
_CLASS_MEAN_BYTES = 12  # per picture pixel and class: means of one picture of a batch
_CLASS_WORK_BYTES = 48  # per picture pixel and class: one answer as logits, evidence, probability and their entropies
_FURTHER_MAP_BYTES = 24  # per voxel: vacuity, edge and its uncertainty, once as computed and once on the file's grid
_PLANE_BYTES, _PLANE_CLASS_BYTES = 16, 4  # per voxel, and per voxel and class: sums over the planes
_MAP_BYTES = 36  # per voxel: labels and uncertainty maps, once as computed and once on the file's grid
_PROBABILITY_BYTES = 8  # per voxel and structure: likewise


@dataclass(frozen=True)
class BatchPlan:
    """How much to do at a time.

    Attributes:
        images: pictures per encoder call. prompts: prompts per decoder call.
        embeddings: image embeddings that may be kept for later use.
        estimate: bytes the whole process is expected to hold at its peak.
    """

    images: int
    prompts: int
    embeddings: int
    estimate: int


def parse_memory(text: str) -> int:
    """Read an amount of memory such as "4G", "512M" or "1.5GiB" (powers of 1024) as bytes.

    Raises:
        ConfigError: the text is no amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if not match or not float(match[1]):
        raise ConfigError(f"memory '{text}': expected a number with K, M, G or T behind it, such as 4G or 512M")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def memory_in_use() -> int:
    """Measure the bytes of memory this process holds now; elsewhere than on Linux, its peak or a typical value."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_memory() or _TYPICAL_PROCESS


def peak_memory() -> int | None:
    """Measure the most bytes of physical memory this process has held so far; None where the system does not say."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def plan_batches(
    volume: Volume,
    *,
    size: int,
    structures: int,
    keep_probabilities: bool,
    limit: int | None,
    classes: int = 0,
    planes: int = 1,
) -> BatchPlan:
    """Choose batches that keep the whole process within `limit`.

    Args:
        volume: the image that will be segmented, already in memory.
        size: side of the network input in pixels.
        structures: number of structures asked for.
        keep_probabilities: whether a map per structure is kept.
        limit: bytes the process may hold; None aims at 4 GiB and refuses nothing.
        classes: of a network that answers all classes of a picture at once; 0 for a promptable one.
        planes: axes the volume is cut across.

    Raises:
        BudgetError: even one picture at a time needs more than `limit`; the message holds the estimate.
    """
    voxels = int(np.prod(volume.grid.shape))
    per_voxel = _MAP_BYTES + (_PROBABILITY_BYTES * structures if keep_probabilities else 0)
    per_voxel += _FURTHER_MAP_BYTES if classes else 0
    per_voxel += _PLANE_BYTES + _PLANE_CLASS_BYTES * classes if planes > 1 else 0
    outputs = voxels * per_voxel + 2 * volume.voxels.nbytes  # the working copy, and one for intensities
    stem, beyond = min(size, _STEM_SIDE) ** 2, max(size**2 - _STEM_SIDE**2, 0)
    image = stem * _ENCODER_BYTES + beyond * _WIDE_ENCODER_BYTES
    prompt, embedding = stem * _DECODER_BYTES, stem * _EMBEDDING_BYTES
    slices, work = volume.grid.shape[2], _WORK_BYTES * voxels // volume.grid.shape[2]
    if classes:
        picture = voxels // min(volume.grid.shape)  # the largest one of any cut
        image += prompt + classes * (size**2 * _CLASS_INPUT_BYTES + picture * _CLASS_MEAN_BYTES)
        work = classes * picture * _CLASS_WORK_BYTES
    fixed = memory_in_use() + _WORKSPACE + outputs + work
    needed = fixed + max(image, prompt) + 2 * embedding
    if limit is not None and needed > limit:
        raise BudgetError(
            f"{volume.source or 'the image'}: segmenting {volume.grid.shape} voxels needs about {_gigabytes(needed)} "
            f"({_gigabytes(outputs)} for the result, {_gigabytes(image)} for one picture in the network), more than "
            f"the {_gigabytes(limit)} allowed. Allow more with --memory, crop the image, or leave out --probabilities."
        )
    free = max((limit or TARGET) - fixed, 0)
    images = _within(free // 2, image, _MOST_IMAGES)
    prompts = _within(free // 4, prompt, _MOST_PROMPTS)
    embeddings = _within(free // 4, embedding, min(_MOST_EMBEDDINGS, 4 * slices))
    busy = max(images * image, prompts * prompt) + embeddings * embedding
    return BatchPlan(images, prompts, embeddings, max(needed, fixed + busy))


def _within(available: int, each: int, most: int) -> int:
    return int(min(max(available // each, 1), most))


def _gigabytes(amount: int) -> str:
    return f"{amount / 2**30:.2f} GB"
