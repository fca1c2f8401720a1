"""`UNetShape`: a plain U-Net on paper, to count its weights, feature maps and multiply-adds before it is built.

The network of Isensee et al. 2021: two convolutions with instance normalisation per stage, the first one strided;
transposed convolutions back up, skips concatenated, two convolutions; a 1 x 1 head per decoder level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

Shape = tuple[int, ...]
_CONVOLUTIONS = 2  # per stage, on the way down and on the way up


@dataclass(frozen=True)
class UNetShape:
    """Sizes of a plain U-Net.

    Attributes:
        strides, kernels: per stage, finest first; see `topology`.
        features: channels of each stage.
        channels: of the input. classes: of the answer, with background.
    """

    strides: tuple[Shape, ...]
    kernels: tuple[Shape, ...]
    features: tuple[int, ...]
    channels: int
    classes: int

    def maps(self, patch: Sequence[int]) -> tuple[Shape, ...]:
        """Give the spatial shape of the maps of each stage for an input of shape `patch`."""
        shapes, current = [], tuple(patch)
        for stride in self.strides:
            current = tuple(ceil(side / step) for side, step in zip(current, stride, strict=True))
            shapes.append(current)
        return tuple(shapes)

    def activations(self, patch: Sequence[int]) -> int:
        """Count the numbers that convolutions write for one sample: the measure nnU-Net fits to its memory.

        Equation: sum over stages of 2 F N on the way down, and (2 F + F + classes) N on the way up, with F features on
        maps of N voxels (F for the transposed convolution).
        """
        down, up = 0, 0
        for stage, (shape, features) in enumerate(zip(self.maps(patch), self.features, strict=True)):
            down += _CONVOLUTIONS * features * prod(shape)
            if stage + 1 < len(self.features):
                up += ((_CONVOLUTIONS + 1) * features + self.classes) * prod(shape)
        return down + up

    def parameters(self) -> int:
        """Count the weights: kernels and biases, scale and shift of the normalisations, heads."""
        total, before = 0, self.channels
        last = len(self.features) - 1
        for stage, (features, kernel) in enumerate(zip(self.features, self.kernels, strict=True)):
            size = prod(kernel)
            total += size * (before + features) * features + 2 * 3 * features  # bias, scale and shift each
            if stage < last:
                total += prod(self.strides[stage + 1]) * self.features[stage + 1] * features + features
                total += size * (2 * features + features) * features + 2 * 3 * features
                total += (features + 1) * self.classes
            before = features
        return total

    def multiply_adds(self, patch: Sequence[int]) -> tuple[int, ...]:
        """Count the multiply-adds of one forward pass of one sample, per stage (down and up together)."""
        counts, before = [], self.channels
        maps = self.maps(patch)
        for stage, (shape, features, kernel) in enumerate(zip(maps, self.features, self.kernels, strict=True)):
            count = prod(kernel) * (before + features) * features
            if stage + 1 < len(self.features):
                # Kernel and stride are equal: each voxel of the finer map is written by one tap.
                count += self.features[stage + 1] * features
                count += prod(kernel) * 3 * features * features + features * self.classes
            counts.append(count * prod(shape))
            before = features
        return tuple(counts)

    def live_in_prediction(self, patch: Sequence[int]) -> int:
        """Count the numbers held at once in a pass without gradients: all skips, and four maps of the finest stage."""
        sizes = [features * prod(shape) for features, shape in zip(self.features, self.maps(patch), strict=True)]
        return sum(sizes) + 4 * max(sizes)
