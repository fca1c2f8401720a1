"""Prompt encoder of Segment Anything: points, boxes and coarse masks to tokens and a map.

Kirillov et al. 2023, arXiv:2304.02643, appendix A. State-dict names are the official ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d


class FourierPositions(nn.Module):
    """Random Fourier code of positions: PE(c) = [sin(2 pi (2c - 1) M), cos(2 pi (2c - 1) M)], M ~ N(0, 1) fixed.

    Args:
        dim: length of the code; M has shape [2, dim / 2].
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))

    def forward(self, positions: Tensor) -> Tensor:
        """Encode positions [..., 2] as (x, y) in [0, 1]; returns [..., dim] float32."""
        with torch.autocast(positions.device.type, enabled=False):  # bf16 phases would move a prompt by pixels
            angles = 2 * math.pi * ((2 * positions.float() - 1) @ self.positional_encoding_gaussian_matrix.float())
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, side: int) -> Tensor:
        """Encode the cell centres of a side x side grid: [1, dim, side, side]."""
        centres = (torch.arange(side, device=self.positional_encoding_gaussian_matrix.device) + 0.5) / side
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        return self(torch.stack([columns, rows], dim=-1)).permute(2, 0, 1)[None]


def mask_branch(inside: int, hidden: int, dim: int) -> nn.Sequential:
    """Build the branch from a dense prompt [N, inside, 4G, 4G] to the embedding's grid [N, dim, G, G]."""
    return nn.Sequential(
        nn.Conv2d(inside, hidden // 4, 2, stride=2),
        LayerNorm2d(hidden // 4),
        nn.GELU(),
        nn.Conv2d(hidden // 4, hidden, 2, stride=2),
        LayerNorm2d(hidden),
        nn.GELU(),
        nn.Conv2d(hidden, dim, 1),
    )


class PromptEncoder(nn.Module):
    """Encode prompts given in pixels of the padded network input.

    Args:
        dim: width of the tokens and of the dense map.
        grid: side G of the image embedding.
        image_size: side of the network input in pixels.
        mask_channels: channels inside the mask branch.
    """

    def __init__(self, *, dim: int = 256, grid: int = 64, image_size: int = 1024, mask_channels: int = 16) -> None:
        super().__init__()
        self.dim, self.grid, self.image_size = dim, grid, image_size
        self.pe_layer = FourierPositions(dim)
        # 0 negative point, 1 positive point, 2 top-left corner, 3 bottom-right corner
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, dim) for _ in range(4)])
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.no_mask_embed = nn.Embedding(1, dim)
        self.mask_downscaling = mask_branch(1, mask_channels, dim)

    def dense_positions(self) -> Tensor:
        """Positional code of the image embedding: [1, dim, G, G]."""
        return self.pe_layer.grid(self.grid)

    def forward(
        self, *, boxes: Tensor | None, points: Tensor | None, point_labels: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Encode the prompts of N objects.

        Args:
            boxes: [N, 4] (x_min, y_min, x_max, y_max) in pixels, or None.
            points: [N, P, 2] (x, y) in pixels, or None.
            point_labels: [N, P]: 1 inside, 0 outside, -1 padding.
            masks: [N, 1, 4G, 4G] logits of a coarse mask, or None.

        Returns:
            Tokens [N, T, dim] (points, then the two box corners) and the dense map [N, dim, G, G].
        """
        count = next((len(prompt) for prompt in (boxes, points, masks) if prompt is not None), 1)
        tokens = [torch.empty(count, 0, self.dim, device=self.no_mask_embed.weight.device)]
        if points is not None and point_labels is not None:
            tokens.append(self._points(points, point_labels, pad=boxes is None))
        if boxes is not None:
            tokens.append(self._boxes(boxes))
        if masks is not None:
            dense = self.mask_downscaling(masks)
        else:
            dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(count, -1, self.grid, self.grid)
        return torch.cat(tokens, dim=1), dense

    def _points(self, points: Tensor, labels: Tensor, *, pad: bool) -> Tensor:
        if pad:  # without a box, one point that says nothing is appended
            points = torch.cat([points, points.new_zeros(len(points), 1, 2)], dim=1)
            labels = torch.cat([labels, -labels.new_ones(len(labels), 1)], dim=1)
        code = self._position(points)
        kind = labels[..., None]
        code = torch.where(kind == -1, self.not_a_point_embed.weight, code)
        code = code + torch.where(kind == 0, self._kind_embedding(0), 0.0)
        return code + torch.where(kind == 1, self._kind_embedding(1), 0.0)

    def _boxes(self, boxes: Tensor) -> Tensor:
        corners = torch.cat([self._kind_embedding(2), self._kind_embedding(3)])  # [2, dim]
        return self._position(boxes.reshape(-1, 2, 2)) + corners

    def _kind_embedding(self, kind: int) -> Tensor:
        return self.point_embeddings.get_parameter(f"{kind}.weight")  # [1, dim]

    def _position(self, pixels: Tensor) -> Tensor:
        return self.pe_layer((pixels.float() + 0.5) / self.image_size)
