"""`Scale`: how much a plan may spend; the published reference, and one for two processor cores.

The paper's: nnU-Net 2 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z) fits its networks to 8 GB of a graphics
card in mixed precision. The laptop's has no published counterpart: four levels of 16 to 128 features learn Hippocampus
(whole crops of 40 x 56 x 40, batch 2) in minutes on a processor; at equal time more steps learn more than larger ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from medmargin.errors import ConfigError


@dataclass(frozen=True)
class Scale:
    """Limits of a plan.

    Attributes:
        name: "paper" or "laptop".
        memory: bytes that a training may hold.
        precision: "mixed" (16-bit maps on a graphics card) or "float32" (a processor); see `memory`.
        base_features: features of the first stage; they double with every stage.
        most_features: cap of the features by number of dimensions.
        most_stages: cap of the resolution levels; None: as many as the patch allows.
        fitted_batch: samples that must fit into the memory beside each other before the patch is accepted.
        most_samples: cap of the batch by number of dimensions; None: what the memory and the data set allow.
        longest_side: pixels to which longer slices are brought for a 2-D network; None: none are.
    """

    name: str
    memory: int
    precision: str
    base_features: int
    most_features: Mapping[int, int]
    most_stages: int | None
    fitted_batch: int
    most_samples: Mapping[int, int] | None
    longest_side: int | None


PAPER = Scale("paper", 8 * 2**30, "mixed", 32, {2: 512, 3: 320}, None, 2, None, None)
LAPTOP = Scale("laptop", 3 * 2**29, "float32", 16, {2: 128, 3: 128}, 4, 4, {2: 8, 3: 2}, 192)
SCALES = {scale.name: scale for scale in (PAPER, LAPTOP)}


def scale_named(name: str, *, memory: int | None = None) -> Scale:
    """Look up a scale, with another memory where one is given (bytes).

    Raises:
        ConfigError: there is no such scale.
    """
    if name not in SCALES:
        raise ConfigError(f"scale '{name}': expected {' or '.join(SCALES)}")
    return SCALES[name] if memory is None else replace(SCALES[name], memory=memory)
