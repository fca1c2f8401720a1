"""EfficientViT-SAM image encoder: a convolutional pyramid with linear attention, and a neck that merges its levels.

Backbone: Cai et al. 2023, arXiv:2205.14756 (L series). Neck: Zhang, Cai, Han 2024, "EfficientViT-SAM",
arXiv:2402.05008. State-dict names are the official ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.blocks.checkpointing import recomputed
from medmargin.networks.blocks.efficient_vit import (
    NORM_EPS,
    ConvLayer,
    EfficientViTBlock,
    FusedMBConv,
    MBConv,
    ResBlock,
    Residual,
)
from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d

_ATTENTION_KERNELS = {"att": 5, "att@3": 3}


class EfficientViTEncoder(nn.Module):
    """Encode [B, 3, S, S] to [B, out_channels, grid, grid]; the defaults are the L0 size (30,728,224 weights).

    Args:
        widths, depths: channels of each stage, and its blocks after the first, which halves the resolution.
        block_kinds: kind of each stage's blocks: 'res', 'fmb', 'mb', 'att' or 'att@3' (attention with kernel 5 or 3).
        expand_ratios: inner widening of each stage's blocks; four times as much in its first block.
        few_norms: stages whose convolutional blocks normalise only at their end.
        head_dim: width of an attention head.
        neck_stages: stages the neck merges.
        neck_width, neck_depth, neck_kind, neck_expand_ratio: of the neck's blocks ('res', 'fmb' or 'mb').
        out_channels: width of the embedding.
        grid: side of the embedding; every merged stage is resized to it (bicubic).
        input_size: images of another side are resized to it (bilinear) first; None takes them as they are.
        gradient_checkpointing: recompute each stage in the backward pass.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        depths: Sequence[int] = (1, 1, 1, 4, 4),
        block_kinds: Sequence[str] = ("res", "fmb", "fmb", "mb", "att"),
        expand_ratios: Sequence[float] = (1, 4, 4, 4, 6),
        few_norms: Sequence[bool] = (False, False, False, True, True),
        head_dim: int = 32,
        neck_stages: Sequence[int] = (4, 3, 2),
        neck_width: int = 256,
        neck_depth: int = 4,
        neck_kind: str = "fmb",
        neck_expand_ratio: float = 1,
        out_channels: int = 256,
        grid: int = 64,
        input_size: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.backbone = _Backbone(widths, depths, block_kinds, expand_ratios, few_norms, head_dim)
        self.backbone.gradient_checkpointing = gradient_checkpointing
        blocks = [
            Residual(_local_block(neck_kind, neck_width, neck_width, expand_ratio=neck_expand_ratio))
            for _ in range(neck_depth)
        ]
        self.neck = _Neck({stage: widths[stage] for stage in neck_stages}, neck_width, blocks, out_channels, grid)
        self.norm = LayerNorm2d(out_channels, eps=NORM_EPS)

    def stages(self, image: Tensor) -> list[Tensor]:
        """Return the map [B, widths[i], S / 2^(i + 1), S / 2^(i + 1)] of each stage i."""
        if self.input_size is not None and self.input_size != image.shape[-1]:
            image = F.interpolate(
                image,
                (self.input_size, self.input_size),
                mode="bilinear",
                antialias=self.input_size < image.shape[-1],
            )
        return self.backbone(image)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.neck(self.stages(image)))


class _OpSequence(nn.Module):
    def __init__(self, *operations: nn.Module) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(operations)

    def forward(self, x: Tensor) -> Tensor:
        for operation in self.op_list:
            x = operation(x)
        return x


class _Backbone(nn.Module):
    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        block_kinds: Sequence[str],
        expand_ratios: Sequence[float],
        few_norms: Sequence[bool],
        head_dim: int,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.stages = nn.ModuleList()
        for index, (width, depth, kind, expand_ratio, few) in enumerate(
            zip(widths, depths, block_kinds, expand_ratios, few_norms, strict=True)
        ):
            if index == 0:
                first: nn.Module = ConvLayer(3, width, 3, stride=2, activated=True)
            else:
                entry = _local_block(
                    kind if kind in ("mb", "fmb") else "mb",
                    widths[index - 1],
                    width,
                    expand_ratio=4 * expand_ratio,
                    stride=2,
                    few_norms=few,
                )
                first = Residual(entry, shortcut=False)
            blocks = [_block(kind, width, expand_ratio, few, head_dim) for _ in range(depth)]
            self.stages.append(_OpSequence(first, *blocks))

    def forward(self, image: Tensor) -> list[Tensor]:
        maps, x = [], image
        for stage in self.stages:
            x = recomputed(stage, x) if self.gradient_checkpointing else stage(x)
            maps.append(x)
        return maps


class _Neck(nn.Module):
    """Bring the chosen stages to one width and grid, add them up, refine the sum."""

    def __init__(
        self, inputs: dict[int, int], width: int, blocks: Sequence[nn.Module], out_channels: int, grid: int
    ) -> None:
        super().__init__()
        self.stages, self.grid = tuple(inputs), grid
        self.input_ops = nn.ModuleList([_OpSequence(ConvLayer(channels, width)) for channels in inputs.values()])
        self.middle = _OpSequence(*blocks)
        self.output_ops = nn.ModuleList([_OpSequence(ConvLayer(width, out_channels, normalised=False))])

    def forward(self, maps: list[Tensor]) -> Tensor:
        levels = zip(self.stages, self.input_ops, strict=True)
        resized = [_resize(operation(maps[stage]), self.grid) for stage, operation in levels]
        return self.output_ops[0](self.middle(sum(resized[1:], start=resized[0])))


def _resize(x: Tensor, side: int) -> Tensor:
    return x if x.shape[-2:] == (side, side) else F.interpolate(x, (side, side), mode="bicubic", align_corners=False)


def _block(kind: str, width: int, expand_ratio: float, few_norms: bool, head_dim: int) -> nn.Module:
    if kind in _ATTENTION_KERNELS:
        return EfficientViTBlock(width, head_dim=head_dim, expand_ratio=expand_ratio, kernel=_ATTENTION_KERNELS[kind])
    return Residual(_local_block(kind, width, width, expand_ratio=expand_ratio, few_norms=few_norms))


def _local_block(
    kind: str, inside: int, outside: int, *, expand_ratio: float, stride: int = 1, few_norms: bool = False
) -> nn.Module:
    if kind == "res":
        return ResBlock(inside, outside, stride=stride, few_norms=few_norms)
    if kind == "fmb":
        return FusedMBConv(inside, outside, expand_ratio=expand_ratio, stride=stride, few_norms=few_norms)
    if kind == "mb":
        return MBConv(inside, outside, expand_ratio=expand_ratio, stride=stride, few_norms=few_norms)
    raise ValueError(f"unknown block kind '{kind}': choose res, fmb, mb, att or att@3")
