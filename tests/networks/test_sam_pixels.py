"""Pixels into SAM's own weights, and its masks back to the picture."""

from __future__ import annotations

import torch

from medmargin.networks.sam_pixels import restore_logits, sam_input


def test_the_mean_colour_becomes_zero_and_so_does_the_padding() -> None:
    image = torch.tensor([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1).repeat(2, 1, 4, 8)
    image[:, 1] += 57.12
    network_input = sam_input(image, 8)
    assert network_input.shape == (2, 3, 8, 8)
    assert network_input[:, :, 4:].abs().max() == 0
    torch.testing.assert_close(network_input[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))


def test_padding_is_cut_off_before_resizing() -> None:
    logits = torch.full((1, 1, 8, 8), -100.0)
    logits[..., :6, :4] = 3.0
    restored = restore_logits(logits, crop=(6, 4), size=(12, 9))
    assert restored.shape == (1, 1, 12, 9)
    assert (restored == 3.0).all()
