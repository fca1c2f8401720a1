"""A promptable network in batches: pictures in, embeddings kept, one map per prompt out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.inference.budget import BatchPlan
from medmargin.networks.promptable import Embedding, Promptable

MASK_LOGIT = 4.0  # a mask prompt is given as logits +-4, a probability of 0.98: believed, and open to correction


@dataclass(frozen=True)
class Ask:
    """One prompt, in pixels of the network input.

    Attributes:
        image: which of the embedded images it is about.
        box: [4] float32 or None.
        points: [P, 2] float32. positive: [P] bool.
        mask: [S, S] in {0, 1} on the network's grid, or None.
    """

    image: int
    box: NDArray[np.float32] | None
    points: NDArray[np.float32]
    positive: NDArray[np.bool_]
    mask: NDArray | None

    @property
    def kind(self) -> tuple[bool, int, bool]:
        """Prompts of one kind can share a batch without padding, which would change their answers."""
        return self.box is not None, len(self.points), self.mask is not None


class BatchedNetwork:
    """Runs a network within the batches that fit the memory.

    Args:
        network: in eval mode.
        batches: how much to do at a time.
    """

    def __init__(self, network: Promptable, batches: BatchPlan) -> None:
        self.batches = batches
        self.size = network.image_size
        self._network = network
        self._device = device_of(network)

    def encode(self, images: Sequence[NDArray[np.float32]]) -> Embedding:
        """Encode images [3, S, S] in [0, 1]; returns the embedding of all of them, in order."""
        step = self.batches.images
        parts = [
            self._network.encode(torch.from_numpy(np.stack(images[start : start + step])).to(self._device))
            for start in range(0, len(images), step)
        ]
        if len(parts) == 1:
            return parts[0]
        skips = zip(*(part.skips for part in parts), strict=True)
        return Embedding(torch.cat([part.features for part in parts]), tuple(torch.cat(skip) for skip in skips))

    def decode(self, embedding: Embedding, asks: Sequence[Ask]) -> Iterator[NDArray[np.float32]]:
        """Answer prompts in order: logits [S, S] each, on the grid of the network input."""
        for start in range(0, len(asks), self.batches.prompts):
            yield from self._decode_batch(embedding, asks[start : start + self.batches.prompts])

    def _decode_batch(self, embedding: Embedding, asks: Sequence[Ask]) -> list[NDArray[np.float32]]:
        kinds = defaultdict(list)
        for index, ask in enumerate(asks):
            kinds[ask.kind].append(index)
        answers: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(asks)
        for indices in kinds.values():
            logits = self._decode_kind(embedding, [asks[index] for index in indices])
            for index, answer in zip(indices, logits, strict=True):
                answers[index] = answer
        return answers

    def _decode_kind(self, embedding: Embedding, asks: Sequence[Ask]) -> NDArray[np.float32]:
        has_box, points, has_mask = asks[0].kind
        prediction = self._network.decode(
            embedding,
            boxes=self._tensor([ask.box for ask in asks]) if has_box else None,
            points=self._tensor([ask.points for ask in asks]) if points else None,
            point_labels=self._tensor([ask.positive for ask in asks]).long() if points else None,
            masks=self._mask_logits(asks, 4 * embedding.features.shape[-1]) if has_mask else None,
            image_index=torch.tensor([ask.image for ask in asks], device=self._device),
        )
        logits = prediction.logits.float()  # [N, 1, S', S']
        if logits.shape[-1] != self.size:
            logits = F.interpolate(logits, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return logits[:, 0].cpu().numpy()

    def _mask_logits(self, asks: Sequence[Ask], side: int) -> Tensor:
        masks = self._tensor([ask.mask for ask in asks])[:, None].float()  # [N, 1, S, S]
        return (F.interpolate(masks, size=(side, side), mode="area") * 2 - 1) * MASK_LOGIT

    def _tensor(self, arrays: Sequence[NDArray | None]) -> Tensor:
        return torch.from_numpy(np.stack([array for array in arrays if array is not None])).to(self._device)


def device_of(network: Any) -> torch.device:
    """Tell where a network's weights are; one without weights runs on the processor."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


@contextmanager
def predicting(networks: Sequence[nn.Module], threads: int | None) -> Iterator[None]:
    """Put networks into eval mode and torch into inference mode, and everything back afterwards."""
    before = torch.get_num_threads()
    with ExitStack() as stack:
        for network in networks:
            for module in network.modules():
                stack.callback(setattr, module, "training", module.training)
            network.eval()
        if threads is not None:
            torch.set_num_threads(threads)
        stack.callback(torch.set_num_threads, before)
        with torch.inference_mode():
            yield
