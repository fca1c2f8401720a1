"""Networks whose answers are known, and small images for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.imaging import Grid, Volume
from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.prediction import Prediction
from medmargin.networks.promptable import Embedding, Promptable


class KnownNetwork(nn.Module):
    """Counts its calls and answers with what `answer` says about the picture and the box.

    Args:
        image_size: side of the network input.
        answer: (pictures [N, S, S] in [0, 1], boxes [N, 4] or None) -> inside or not, or logits [N, S, S].
    """

    def __init__(self, image_size: int, answer: Callable[[Tensor, Tensor | None], Tensor]) -> None:
        super().__init__()
        self.image_size, self.answer = image_size, answer
        self.encoded: list[int] = []  # images per call
        self.decoded: list[int] = []  # prompts per call
        self.seen: list[dict[str, Tensor | None]] = []

    def encode(self, image: Tensor) -> Embedding:
        self.encoded.append(len(image))
        return Embedding(F.avg_pool2d(image, 4), (image[:, :1],))

    def decode(self, embedding: Embedding, *, image_index: Tensor, **prompts: Tensor | None) -> Prediction:
        self.decoded.append(len(image_index))
        self.seen.append({"image_index": image_index, **prompts})
        logits = self.answer(embedding.skips[0][image_index, 0], prompts["boxes"])
        if logits.dtype == torch.bool:
            logits = logits.float() * 16 - 8
        return Prediction(logits[:, None], quality=torch.ones(len(image_index), 1))


def within(boxes: Tensor, side: int) -> Tensor:
    """Fill boxes [N, 4] (inclusive): [N, side, side] bool."""
    x = torch.arange(side)
    columns = (x >= boxes[:, :1]) & (x <= boxes[:, 2:3])
    rows = (x >= boxes[:, 1:2]) & (x <= boxes[:, 3:])
    return rows[:, :, None] & columns[:, None, :]


def bright_in_box(pictures: Tensor, boxes: Tensor | None) -> Tensor:
    """Answer with the bright pixels inside the box (all of them without a box)."""
    bright = pictures > 0.5
    return bright if boxes is None else bright & within(boxes, pictures.shape[-1])


def bright(pictures: Tensor, boxes: Tensor | None) -> Tensor:
    """Answer with the bright pixels, whatever the prompt."""
    return pictures > 0.5


def filled_box(pictures: Tensor, boxes: Tensor | None) -> Tensor:
    """Answer with the box, whatever the picture."""
    if boxes is None:
        raise AssertionError("expected boxes")
    return within(boxes, pictures.shape[-1])


def unsure(pictures: Tensor, boxes: Tensor | None) -> Tensor:
    """Answer with logits that follow the picture inside the box."""
    inside = bright_in_box(torch.ones_like(pictures), boxes)
    return torch.where(inside, pictures * 10 - 4, torch.tensor(-6.0))


@pytest.fixture
def oracle() -> Callable[..., KnownNetwork]:
    """Make a network that finds the bright pixels inside the box."""
    return lambda size=32: KnownNetwork(size, bright_in_box)


@pytest.fixture
def stubborn() -> Callable[..., KnownNetwork]:
    """Make a network that finds the bright pixels and ignores the prompt."""
    return lambda size=32: KnownNetwork(size, bright)


@pytest.fixture
def box_filler() -> Callable[..., KnownNetwork]:
    """Make a network that answers with the box."""
    return lambda size=32: KnownNetwork(size, filled_box)


@pytest.fixture(scope="session")
def hesitant() -> KnownNetwork:
    """A network that is never sure, 32 px."""
    return KnownNetwork(32, unsure)


@pytest.fixture(scope="session")
def tiny_network() -> Promptable:
    """A small LiteMedSAM with random weights, 64 px."""
    torch.manual_seed(1)
    return medsam_lite(
        image_size=64,
        embed_dims=(8, 12, 16, 24),
        depths=(1, 1, 2, 1),
        num_heads=(2, 2, 2, 3),
        stride1_dims=(24,),
        dim=32,
        decoder_heads=2,
        decoder_mlp_dim=64,
        iou_hidden=32,
    ).eval()


@pytest.fixture
def picture() -> Callable[..., Volume]:
    """Make a 2-D picture from pixels [H, W] or [H, W, 3]."""

    def make(pixels: np.ndarray, *, format: str = "picture") -> Volume:
        voxels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 1, 0)[..., None]
        return Volume(voxels, Grid(voxels.shape[1:], np.eye(4), "px"), dims=2, format=format)

    return make


@pytest.fixture
def volume() -> Callable[..., Volume]:
    """Make a volume from voxels [I, J, K]."""

    def make(voxels: np.ndarray, *, affine: np.ndarray | None = None, unit: str = "mm") -> Volume:
        return Volume(voxels[None], Grid(voxels.shape, np.eye(4) if affine is None else affine, unit))

    return make


@pytest.fixture
def blobs() -> np.ndarray:
    """Two bright blobs in a dark volume [20, 24, 16], neither centred nor symmetric."""
    i, j, k = np.ogrid[:20, :24, :16]
    first = ((i - 6) / 4) ** 2 + ((j - 8) / 5) ** 2 + ((k - 5) / 3.5) ** 2 <= 1
    second = ((i - 14) / 3) ** 2 + ((j - 16) / 6) ** 2 + ((k - 10) / 4) ** 2 <= 1
    return np.where(first | second, 100, 0).astype(np.float32)
