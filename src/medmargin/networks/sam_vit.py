"""Vision transformer of Segment Anything: windowed blocks with a few global ones, relative positions, and a neck.

Kirillov et al. 2023, arXiv:2304.02643; relative positions: Li et al. 2022 (MViTv2), arXiv:2112.01526. State-dict names
are the official ones. MedSAM (Ma et al. 2024, arXiv:2304.12306) is the same network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.blocks.checkpointing import recomputed
from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d
from medmargin.networks.blocks.windows import from_windows, to_windows


class SamViT(nn.Module):
    """Encode [B, 3, S, S] to [B, out_channels, G, G] with G = S / patch_size; the defaults are those of ViT-B.

    Blocks are plain modules in `blocks` and take tokens [B, G, G, embed_dim], so that a system may wrap, replace or tap
    any of them, or their `attn.qkv` and `mlp`.

    Args:
        image_size: S in pixels, a multiple of `patch_size`.
        patch_size: side of a patch in pixels.
        embed_dim: width of the tokens. depth: blocks. num_heads: attention heads.
        mlp_ratio: inner widening of the feed-forward parts.
        window_size: side of the windows of the other blocks, in patches.
        global_blocks: blocks (from 0) that attend over the whole grid.
        out_channels: width of the embedding.
        gradient_checkpointing: recompute each block in the backward pass.
    """

    def __init__(
        self,
        *,
        image_size: int = 1024,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        window_size: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        out_channels: int = 256,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of the patch size {patch_size}")
        self.grid = image_size // patch_size
        self.global_blocks = tuple(global_blocks)
        self.gradient_checkpointing = gradient_checkpointing
        self.patch_embed = _PatchEmbedding(patch_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid, self.grid, embed_dim))
        self.blocks = nn.ModuleList([
            SamBlock(embed_dim, num_heads, self.grid, mlp_ratio, window=0 if index in global_blocks else window_size)
            for index in range(depth)
        ])
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dim, out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.tapped(image, ())[0]

    def tapped(self, image: Tensor, blocks: Sequence[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode images; also return the maps [B, embed_dim, G, G] that leave the given blocks (from 0)."""
        tokens = self.patch_embed(image) + self.pos_embed
        maps = {}
        for index, block in enumerate(self.blocks):
            tokens = recomputed(block, tokens) if self.gradient_checkpointing else block(tokens)
            if index in blocks:
                maps[index] = tokens.permute(0, 3, 1, 2)
        return self.neck(tokens.permute(0, 3, 1, 2)), tuple(maps[index] for index in blocks)


class _PatchEmbedding(nn.Module):
    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).permute(0, 2, 3, 1)  # [B, G, G, dim]


class SamBlock(nn.Module):
    """Pre-norm attention, over windows or over the whole grid, and a feed-forward part.

    Args:
        dim: width. heads: attention heads. grid: side of the token grid. mlp_ratio: inner widening.
        window: side of a window in cells; 0 attends over the whole grid.
    """

    def __init__(self, dim: int, heads: int, grid: int, mlp_ratio: float, *, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SamAttention(dim, heads, window or grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _FeedForward(dim, int(dim * mlp_ratio))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [B, G, G, dim] to the same shape."""
        normed = self.norm1(tokens)
        if self.window:
            # padded after the normalisation: padding is 0 and takes part in the attention
            attended = from_windows(self.attn(to_windows(normed, self.window)), *tokens.shape[1:3])
        else:
            attended = self.attn(normed)
        tokens = tokens + attended
        return tokens + self.mlp(self.norm2(tokens))


class SamAttention(nn.Module):
    """Self-attention over a square grid with decomposed relative positions.

    score[(h, w), (h', w')] = q k / sqrt(d) + q Rh[h - h'] + q Rw[w - w'], with q NOT scaled in the last two terms and
    the tables shared by all heads.

    Args:
        dim: width. heads: attention heads.
        side: side K of the grid; the tables `rel_pos_h` and `rel_pos_w` have 2K - 1 rows.
    """

    def __init__(self, dim: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [B, K, K, dim] to the same shape."""
        side = tokens.shape[1]
        q, k, v = self.qkv(tokens).flatten(1, 2).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # written out in the published order, so that the authors' numbers come back to the last digit
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)  # [B, heads, K * K, K * K]
        rows, columns = self._relative_positions(q.unflatten(2, (side, side)))
        # in place, because the scores of a global block fill 0.8 GB at 1024 px
        scores.unflatten(3, (side, side)).unflatten(2, (side, side)).add_(rows).add_(columns)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2).unflatten(1, (side, side)))

    def _relative_positions(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Score of row and column distances for q [B, heads, K, K, d]: [B, heads, K, K, K, 1] and [..., 1, K]."""
        cells = torch.arange(q.shape[2], device=q.device)
        index = cells[:, None] - cells + len(cells) - 1  # [K, K], row - row' + K - 1
        rows = torch.einsum("bnhwc,hkc->bnhwk", q, self.rel_pos_h[index])
        columns = torch.einsum("bnhwc,wkc->bnhwk", q, self.rel_pos_w[index])
        return rows[..., :, None], columns[..., None, :]


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))
