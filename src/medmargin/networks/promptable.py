"""`Promptable`: image encoder, prompt encoder and mask decoder; the image is encoded once for all its prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.prediction import Prediction
from medmargin.networks.prompt_encoder import PromptEncoder


@dataclass
class Embedding:
    """What the image encoder knows about B images.

    Attributes:
        features: [B, dim, G, G].
        skips: () or maps [B, dim / 4, 2G, 2G] and [B, dim / 8, 4G, 4G] that sharpen the mask.
    """

    features: Tensor
    skips: tuple[Tensor, ...] = ()

    def select(self, index: Tensor) -> Embedding:
        """Pick (and repeat) images by `index` [N] int64."""
        return Embedding(self.features[index], tuple(skip[index] for skip in self.skips))


class Promptable(nn.Module):
    """A promptable segmentation network with the state-dict names of Segment Anything.

    Args:
        image_encoder: [B, 3, S, S] in [0, 1] -> features [B, dim, G, G], or an `Embedding`.
        prompt_encoder, mask_decoder: of the same width and grid.
        box_as_mask: give each box also as a coarse mask prompt, the logits of its inscribed ellipse, and let the
            decoder correct them. Published networks do not; at laptop scale it saves most of the training (see
            docs/systems).
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        *,
        box_as_mask: bool = False,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.box_as_mask = box_as_mask

    @property
    def image_size(self) -> int:
        """Side of the network input in pixels."""
        return self.prompt_encoder.image_size

    def encode(self, image: Tensor) -> Embedding:
        """Encode images [B, 3, S, S] in [0, 1], once for all their prompts."""
        encoded = self.image_encoder(image)
        return encoded if isinstance(encoded, Embedding) else Embedding(encoded)

    def decode(
        self,
        embedding: Embedding,
        *,
        boxes: Tensor | None = None,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        masks: Tensor | None = None,
        image_index: Tensor | None = None,
    ) -> Prediction:
        """Predict the masks of N objects.

        Args:
            embedding: of B images.
            boxes: [N, 4] (x_min, y_min, x_max, y_max) in network pixels.
            points: [N, P, 2] (x, y) in network pixels; point_labels: [N, P] 1 inside, 0 outside, -1 padding.
            masks: [N, 1, 4G, 4G] logits of coarse masks.
            image_index: [N] int64, the image of each object; by default object n lies in image n, or all lie in the
                only image.

        Returns:
            Prediction with logits [N, 1, 4G, 4G] (SAM's single-mask token) and quality [N, 1] (predicted IoU).

        Raises:
            ValueError: the number of objects fits neither one image nor one object per image.
        """
        prior = None
        if self.box_as_mask and boxes is not None and masks is None:
            masks = prior = ellipse_logits(boxes, self.prompt_encoder.grid * 4, self.image_size)
        sparse, dense = self.prompt_encoder(boxes=boxes, points=points, point_labels=point_labels, masks=masks)
        embedding = embedding.select(_image_index(len(sparse), len(embedding.features), image_index, sparse.device))
        logits, quality = self.mask_decoder(
            embedding.features, self.prompt_encoder.dense_positions(), sparse, dense, embedding.skips
        )
        logits, quality = logits[:, :1], quality[:, :1]
        return Prediction(logits if prior is None else logits + prior, quality=quality)

    def forward(self, image: Tensor, **prompts: Tensor | None) -> Prediction:
        """Encode images [B, 3, S, S] and decode their prompts; see `decode`."""
        return self.decode(self.encode(image), **prompts)


def ellipse_logits(boxes: Tensor, side: int, image_size: int, *, slope: float = 4.0, limit: float = 4.0) -> Tensor:
    """Draw the ellipse inscribed in each box as logits: slope * (1 - r^2), r the elliptic radius, cut at +-limit.

    Args:
        boxes: [N, 4] (x_min, y_min, x_max, y_max) in network pixels, inclusive at both ends.
        side: side of the drawn map; image_size: side of the network input the boxes live in.

    Returns:
        [N, 1, side, side] logits.
    """
    centres = (torch.arange(side, device=boxes.device) + 0.5) * (image_size / side)
    low, high = boxes[:, :2].float(), boxes[:, 2:].float() + 1
    middle, radius = (low + high) / 2, ((high - low) / 2).clamp_min(0.5)
    x = ((centres - middle[:, :1]) / radius[:, :1]) ** 2  # [N, side]
    y = ((centres - middle[:, 1:]) / radius[:, 1:]) ** 2
    return (slope * (1 - x[:, None, :] - y[:, :, None])).clamp(-limit, limit)[:, None]


def _image_index(objects: int, images: int, index: Tensor | None, device: torch.device) -> Tensor:
    if index is not None:
        return index
    if images == 1:
        return torch.zeros(objects, dtype=torch.long, device=device)
    if objects == images:
        return torch.arange(objects, device=device)
    raise ValueError(f"{objects} prompts do not fit {images} images: say with image_index which image each belongs to")
