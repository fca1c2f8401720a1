"""The U-Nets of nnU-Net 2: plain, and with a residual encoder.

Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; residual encoder: Isensee et al. 2024, arXiv:2404.09556. Names of
weights are those of nnU-Net 2's releases, so that its checkpoints fit (`official_unet`).

Deviations: dropout for Monte Carlo passes (published: none) follows the stages in the deeper half, encoder and decoder,
as in Bayesian SegNet (Kendall et al. 2015, arXiv:1511.02680), and leaves whole channels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn

from medmargin.errors import ConfigError
from medmargin.networks.blocks.unet_blocks import (
    SLOPE,
    ConvStage,
    ResidualBlock,
    ResidualStage,
    Shape,
    convolution,
    upsampling,
)
from medmargin.networks.evidence import EVIDENCE
from medmargin.networks.prediction import Prediction

RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)
"""Blocks per stage of the residual encoder; further stages have 6."""


class UNet(nn.Module):
    """Segment images of any size whose sides the strides divide.

    Build one with `plain_unet` or `residual_unet`.

    Attributes:
        classes: K with the background, or the number of regions. channels: of the image. dims: 2 or 3.
        patch: the size it is trained on, voxels.
        evidence: how logits are read, a key of `evidence.EVIDENCE`; None: softmax, or sigmoids of regions.
        regions: each output is a structure of its own, which may overlap the others.
        deep_supervision: in training mode, logits of every coarser decoder stage are given too.
        divisor: what each side of an image must be a multiple of.
    """

    def __init__(
        self,
        encoder: _Encoder,
        decoder: _Decoder,
        *,
        patch: Sequence[int],
        divisor: Shape,
        channels: int,
        classes: int,
        evidence: str | None,
        regions: bool,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.patch, self.divisor, self.channels, self.classes = tuple(patch), divisor, channels, classes
        self.evidence, self.regions, self.deep_supervision = evidence, regions, deep_supervision
        self._is_channels_last = False
        for head in self.decoder.seg_layers[:-1]:  # there for the weights' sake, and never asked
            head.requires_grad_(deep_supervision)

    @property
    def dims(self) -> int:
        """Number of spatial dimensions."""
        return len(self.patch)

    def channels_last(self) -> UNet:
        """Lay weights and maps out with the channels last, which convolutions on processors are quickest in."""
        self._is_channels_last = True
        return self.to(memory_format=torch.channels_last if self.dims == 2 else torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Prediction:
        """Segment B images.

        Args:
            image: [B, C, *spatial], normalised.

        Returns:
            Prediction with logits [B, O, *spatial] and, in training mode with deep supervision, `deep`: logits of the
            coarser decoder stages, finest last.

        Raises:
            ConfigError: an image of other dimensions or channels, or with a side that the strides do not divide.
        """
        self._check(image)
        *deep, logits = self.decoder(
            self.encoder(_channels_last(image) if self._is_channels_last else image),
            is_deep=self.deep_supervision and self.training,
        )
        return Prediction(logits=logits, deep=tuple(deep))

    def _check(self, image: Tensor) -> None:
        if image.ndim != 2 + self.dims or image.shape[1] != self.channels:
            raise ConfigError(
                f"image {list(image.shape)}: this network takes [B, {self.channels}, *spatial] with {self.dims} "
                "spatial axes. Prepare it with the plan the network was built for"
            )
        if any(side % step for side, step in zip(image.shape[2:], self.divisor, strict=True)):
            raise ConfigError(
                f"image of {list(image.shape[2:])} voxels: sides must be multiples of {list(self.divisor)}. "
                "Pad or cut it into patches"
            )


class _Encoder(nn.Module):
    """Give the maps of every stage, finest first; `stem` comes before the first one."""

    def __init__(self, stages: Sequence[nn.Module], stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.stem is not None:
            x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _Decoder(nn.Module):
    """Work back up from the coarsest maps, joining those of the encoder; stages are numbered coarsest first."""

    def __init__(
        self,
        dims: int,
        outputs: int,
        strides: Sequence[Shape],
        kernels: Sequence[Shape],
        features: Sequence[int],
        *,
        blocks: int,
        dropouts: Sequence[float],
    ) -> None:
        super().__init__()
        self.transpconvs, self.stages, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(features) - 1)):
            width, dropout = features[level], dropouts[level]
            self.transpconvs.append(upsampling(dims, features[level + 1], width, strides[level + 1]))
            self.stages.append(ConvStage(dims, 2 * width, width, kernels[level], blocks=blocks, dropout=dropout))
            self.seg_layers.append(convolution(dims, width, outputs, (1,) * dims, (1,) * dims))

    def forward(self, maps: Sequence[Tensor], *, is_deep: bool) -> list[Tensor]:
        """Give logits, those at full resolution last; with `is_deep` those of all stages."""
        *skips, x = maps
        logits = []
        for number, (up, stage, head) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            x = stage(torch.cat([up(x), skips[-1 - number]], dim=1))
            if is_deep or number == len(self.stages) - 1:
                logits.append(head(x))
        return logits


def plain_unet(
    *,
    dims: int,
    channels: int,
    outputs: int,
    strides: Sequence[Shape],
    kernels: Sequence[Shape],
    features: Sequence[int],
    patch: Sequence[int],
    blocks: Sequence[int] | None = None,
    evidence: str | None = None,
    regions: bool = False,
    deep_supervision: bool = True,
    dropout: float = 0.0,
) -> UNet:
    """Build nnU-Net's U-Net with fresh weights.

    Args:
        dims: 2 or 3. channels: of the image. outputs: classes with the background, or regions.
        strides, kernels, features: per stage, finest first; tuples run along the spatial axes.
        patch: the size it is trained on, voxels.
        blocks: convolutions per encoder stage; None: two, as on the way up.
        evidence, regions, deep_supervision: see `UNet`.
        dropout: probability of leaving out a channel of the maps in the deeper half.

    Raises:
        ConfigError: sizes that do not go together, or a value out of its range.
    """
    widths = [channels, *features]
    blocks = (2,) * len(features) if blocks is None else blocks
    _check_sizes(dims, channels, outputs, strides, kernels, features, blocks, patch)
    _check_reading(outputs, evidence, regions, dropout)
    dropouts = _dropouts(len(features), dropout)
    stages = [
        nn.Sequential(
            ConvStage(
                dims, widths[stage], widths[stage + 1], kernels[stage], strides[stage], blocks=blocks[stage],
                dropout=dropouts[stage],
            )
        )
        for stage in range(len(features))
    ]  # fmt: skip
    decoder = _Decoder(dims, outputs, strides, kernels, features, blocks=2, dropouts=dropouts)
    network = UNet(
        _Encoder(stages), decoder, patch=patch, divisor=_divisor(strides), channels=channels, classes=outputs,
        evidence=evidence, regions=regions, deep_supervision=deep_supervision,
    )  # fmt: skip
    return network.apply(_initialise)


def residual_unet(
    *,
    dims: int,
    channels: int,
    outputs: int,
    strides: Sequence[Shape],
    kernels: Sequence[Shape],
    features: Sequence[int],
    patch: Sequence[int],
    blocks: Sequence[int] | None = None,
    evidence: str | None = None,
    regions: bool = False,
    deep_supervision: bool = True,
    dropout: float = 0.0,
) -> UNet:
    """Build nnU-Net's U-Net with a residual encoder (ResEnc) with fresh weights.

    Args:
        blocks: residual blocks per encoder stage; None: `RESIDUAL_BLOCKS`. On the way up there is one convolution.
        dims, channels, outputs, strides, kernels, features, patch: as in `plain_unet`.
        evidence, regions, deep_supervision, dropout: as in `plain_unet`.

    Raises:
        ConfigError: sizes that do not go together, or a value out of its range.
    """
    widths = [*features[:1], *features]
    if blocks is None:
        blocks = [RESIDUAL_BLOCKS[min(stage, len(RESIDUAL_BLOCKS) - 1)] for stage in range(len(features))]
    _check_sizes(dims, channels, outputs, strides, kernels, features, blocks, patch)
    _check_reading(outputs, evidence, regions, dropout)
    dropouts = _dropouts(len(features), dropout)
    stages = [
        ResidualStage(
            dims, widths[stage], widths[stage + 1], kernels[stage], strides[stage], blocks=blocks[stage],
            dropout=dropouts[stage],
        )
        for stage in range(len(features))
    ]  # fmt: skip
    stem = ConvStage(dims, channels, features[0], kernels[0], blocks=1)
    decoder = _Decoder(dims, outputs, strides, kernels, features, blocks=1, dropouts=dropouts)
    network = UNet(
        _Encoder(stages, stem), decoder, patch=patch, divisor=_divisor(strides), channels=channels, classes=outputs,
        evidence=evidence, regions=regions, deep_supervision=deep_supervision,
    )  # fmt: skip
    return network.apply(_initialise)


def _initialise(module: nn.Module) -> None:
    """Draw convolutions as He et al. 2015 do, arXiv:1502.01852; a residual block starts as its skip."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ResidualBlock):
        nn.init.zeros_(module.conv2.norm.weight)


def _channels_last(image: Tensor) -> Tensor:
    """Lay [B, C, *spatial] out with the channels last; in the strides too where C is 1 and no value moves."""
    return image.movedim(1, -1).contiguous().view(len(image), *image.shape[2:], image.shape[1]).movedim(-1, 1)


def _divisor(strides: Sequence[Shape]) -> Shape:
    divisor = [1] * len(strides[0])
    for stage in strides:
        divisor = [product * step for product, step in zip(divisor, stage, strict=True)]
    return tuple(divisor)


def _dropouts(stages: int, probability: float) -> list[float]:
    """Give the dropout of each stage, finest first."""
    return [probability if stage >= ceil(stages / 2) else 0.0 for stage in range(stages)]


def _check_sizes(
    dims: int,
    channels: int,
    outputs: int,
    strides: Sequence[Shape],
    kernels: Sequence[Shape],
    features: Sequence[int],
    blocks: Sequence[int],
    patch: Sequence[int],
) -> None:
    if dims not in (2, 3) or min(channels, outputs) < 1:
        raise ConfigError(
            f"a U-Net of {dims} dimensions, {channels} channels and {outputs} outputs: expected 2 or 3 dimensions, "
            "and one channel and output or more."
        )
    lengths = {"strides": len(strides), "kernels": len(kernels), "features": len(features), "blocks": len(blocks)}
    if len(set(lengths.values())) > 1 or len(features) < 2:
        raise ConfigError(f"stages of a U-Net: {lengths}: expected two or more, and as many of each.")
    if any(len(shape) != dims for shape in (*strides, *kernels, patch)):
        raise ConfigError(f"strides {strides}, kernels {kernels}, patch {patch}: expected {dims} numbers in each.")
    if set(strides[0]) != {1} or any(side % 2 == 0 for kernel in kernels for side in kernel):
        raise ConfigError(f"strides {strides}, kernels {kernels}: expected 1 in the first stage, and odd kernels.")
    if min(blocks) < 1:
        raise ConfigError(f"blocks are {list(blocks)}: expected one or more in each stage.")


def _check_reading(outputs: int, evidence: str | None, regions: bool, dropout: float) -> None:
    if evidence is not None and evidence not in EVIDENCE:
        raise ConfigError(f"evidence is '{evidence}': choose one of {', '.join(EVIDENCE)}, or none for softmax.")
    if evidence is not None and regions:
        raise ConfigError("evidence is shared by classes that exclude each other, but regions overlap. Choose one.")
    if not regions and outputs < 2:
        raise ConfigError(f"{outputs} output: expected the background and one structure or more, or regions.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout is {dropout}: expected a probability from 0 to below 1.")
