"""Two-way transformer of Segment Anything: prompt tokens and image features attend to each other.

Kirillov et al. 2023, arXiv:2304.02643, appendix A. State-dict names are the official ones.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention whose inner width is the outer one divided by `downsample`.

    Args:
        dim: width of queries, keys and values.
        heads: number of heads.
        downsample: divisor of the inner width.
    """

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(dim, inner), nn.Linear(dim, inner), nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q [N, T, dim] to k, v [N, L, dim]; returns [N, T, dim]."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [N, heads, T, inner / heads]
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        # written out in the published order: a fused kernel rounds otherwise, and the normalisation over a few channels
        # that follows amplifies this beyond parity with the authors' numbers; the time is the same
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5  # [N, heads, T, L]
        return self.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, feed-forward, image to tokens.

    Args:
        dim, heads, mlp_dim: sizes.
        first: the first block attends without positions and REPLACES the tokens instead of adding to them.
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _FeedForward(dim, mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, downsample=2)

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Stack of two-way blocks and a last attention from tokens to image.

    Args:
        depth: number of blocks.
        dim: width. heads: attention heads. mlp_dim: hidden width of the feed-forward parts.
    """

    def __init__(self, *, depth: int = 2, dim: int = 256, heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.layers = nn.ModuleList([TwoWayBlock(dim, heads, mlp_dim, first=index == 0) for index in range(depth)])
        self.final_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Let tokens and image exchange information.

        Args:
            image: [N, dim, G, G] image embedding with the dense prompt added.
            image_pe: [1, dim, G, G] positional code of the grid.
            tokens: [N, T, dim]; the initial tokens are their own positional code at every attention.

        Returns:
            Tokens [N, T, dim] and image features [N, G * G, dim].
        """
        keys, key_pe = image.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2)  # [N, G * G, dim]
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pe)
        queries = queries + self.final_attn_token_to_image(queries + tokens, keys + key_pe, keys)
        return self.norm_final_attn(queries), keys
