"""Batches: never larger than planned, answers in order, prompts of different kinds kept apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from medmargin.inference.budget import BatchPlan
from medmargin.inference.network import Ask, BatchedNetwork
from medmargin.networks.promptable import Promptable


def _ask(image: int, box: list[float] | None, points: int = 0, mask: np.ndarray | None = None) -> Ask:
    rng = np.random.default_rng(points)
    positions = rng.uniform(4, 28, (points, 2)).astype(np.float32)
    return Ask(image, None if box is None else np.array(box, np.float32), positions, np.ones(points, bool), mask)


def test_batches_stay_within_the_plan(oracle: Callable) -> None:
    network = oracle()
    batched = BatchedNetwork(network, BatchPlan(images=2, prompts=3, embeddings=1, estimate=0))
    embedding = batched.encode([np.zeros((3, 32, 32), np.float32)] * 5)
    list(batched.decode(embedding, [_ask(index % 5, [1, 1, 9, 9]) for index in range(8)]))
    assert network.encoded == [2, 2, 1]
    assert network.decoded == [3, 3, 2]


def test_answers_come_in_the_order_of_the_questions(box_filler: Callable) -> None:
    batched = BatchedNetwork(box_filler(), BatchPlan(images=4, prompts=4, embeddings=1, estimate=0))
    embedding = batched.encode([np.zeros((3, 32, 32), np.float32)])
    asks = [_ask(0, [index, 2, index + 3, 9], points=index % 2) for index in range(11)]
    for index, logits in enumerate(batched.decode(embedding, asks)):
        assert np.flatnonzero((logits > 0).any(axis=0)).tolist() == list(range(index, index + 4))


def test_batching_changes_no_answer(tiny_network: Promptable) -> None:
    images = list(np.random.default_rng(0).random((3, 3, 64, 64)).astype(np.float32))
    mask = np.zeros((64, 64), np.uint8)
    mask[8:20, 8:20] = 1
    asks = [
        _ask(0, [4, 4, 20, 20]),
        _ask(1, None, points=2),
        _ask(2, [4, 4, 20, 20], points=1),
        _ask(0, [8, 8, 19, 19], mask=mask),
        _ask(1, [2, 3, 12, 30]),
        _ask(0, None, points=1),
    ]
    together, alone = (
        BatchedNetwork(tiny_network, BatchPlan(images=size, prompts=size, embeddings=1, estimate=0)) for size in (8, 1)
    )
    with torch.inference_mode():
        first = list(together.decode(together.encode(images), asks))
        second = list(alone.decode(alone.encode(images), asks))
    for one, other in zip(first, second, strict=True):
        assert one.shape == (64, 64)
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_mask_prompt_reaches_the_network_as_logits_on_its_grid(box_filler: Callable) -> None:
    network = box_filler()
    batched = BatchedNetwork(network, BatchPlan(images=1, prompts=1, embeddings=1, estimate=0))
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 1
    list(batched.decode(batched.encode([np.zeros((3, 32, 32), np.float32)]), [_ask(0, [1, 1, 2, 2], mask=mask)]))
    masks = network.seen[0]["masks"]
    assert masks.shape == (1, 1, 32, 32)
    assert masks[0, 0, 0, 0] == -masks[0, 0, -1, -1] == 4
