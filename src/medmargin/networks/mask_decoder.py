"""Mask decoder of Segment Anything: tokens and image embedding to mask logits and their predicted IoU.

Kirillov et al. 2023, arXiv:2304.02643, appendix A. State-dict names are the official ones.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d
from medmargin.networks.two_way_transformer import TwoWayTransformer


class _Perceptron(nn.Module):
    """Fully connected layers with ReLU between them."""

    def __init__(self, dims: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inside, outside) for inside, outside in pairwise(dims)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    """Predict `num_masks` masks per object: token 0 is the single mask, the others are SAM's alternatives.

    Args:
        dim: width of the embedding.
        num_masks: number of mask tokens (SAM: 1 + 3).
        depth, heads, mlp_dim: sizes of the two-way transformer.
        iou_hidden: hidden width of the IoU head.
        iou_depth: layers of the IoU head.
    """

    def __init__(
        self,
        *,
        dim: int = 256,
        num_masks: int = 4,
        depth: int = 2,
        heads: int = 8,
        mlp_dim: int = 2048,
        iou_hidden: int = 256,
        iou_depth: int = 3,
    ) -> None:
        super().__init__()
        self.num_masks = num_masks
        self.transformer = TwoWayTransformer(depth=depth, dim=dim, heads=heads, mlp_dim=mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(num_masks, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            [_Perceptron([dim, dim, dim, dim // 8]) for _ in range(num_masks)]
        )
        self.iou_prediction_head = _Perceptron([dim, *[iou_hidden] * (iou_depth - 1), num_masks])

    def forward(
        self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, skips: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Decode all masks of N objects.

        Args:
            image: [N, dim, G, G] embedding of the image each object lies in.
            image_pe: [1, dim, G, G].
            sparse: [N, T, dim] prompt tokens.
            dense: [N, dim, G, G] dense prompt.
            skips: () or maps [N, dim / 4, 2G, 2G] and [N, dim / 8, 4G, 4G] added while upscaling.

        Returns:
            Mask logits [N, num_masks, 4G, 4G] and predicted IoU [N, num_masks].
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])  # [1 + num_masks, dim]
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
        queries, keys = self.transformer(image + dense, image_pe, tokens)
        upscaled = self._upscale(keys.transpose(1, 2).unflatten(2, image.shape[-2:]), skips)  # [N, dim / 8, 4G, 4G]
        weights = torch.stack(
            [mlp(queries[:, 1 + index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )  # [N, num_masks, dim / 8]
        masks = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        return masks, self.iou_prediction_head(queries[:, 0])

    def _upscale(self, x: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        first, norm, activation, second, last = self.output_upscaling
        half, full = skips if skips else (0.0, 0.0)
        return last(second(activation(norm(first(x) + half))) + full)


def class_decoder(base: MaskDecoder, classes: int) -> MaskDecoder:
    """Make a decoder of one mask per class, class 0 the background, out of a decoder of single objects.

    Every foreground class starts as the base's token 0 with its hypernetwork; the background starts as the same with
    the hypernetwork's last layer negated, so that its logits are the negative of theirs: the most probable class is
    foreground where token 0 says so. (It says it a little differently without the other tokens of the base next to it.)

    Args:
        base: stays as it is.
        classes: K >= 2, with the background.
    """
    decoder = copy.deepcopy(base)
    decoder.num_masks = classes
    mlps, quality = decoder.output_hypernetworks_mlps, decoder.iou_prediction_head.layers
    decoder.output_hypernetworks_mlps = nn.ModuleList([copy.deepcopy(mlps[0]) for _ in range(classes)])
    last = quality[-1].get_parameter("weight")
    quality[-1] = nn.Linear(last.shape[1], classes, device=last.device)  # there for its names, nothing trains it
    with torch.no_grad():
        decoder.mask_tokens.weight = nn.Parameter(base.mask_tokens.weight[:1].repeat(classes, 1))
        decoder.mask_tokens.num_embeddings = classes
        for parameter in decoder.output_hypernetworks_mlps[0].get_submodule("layers.2").parameters():
            parameter.neg_()
    return decoder
