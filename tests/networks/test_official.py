"""Official checkpoints: loaded as a whole, at another image size, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from medmargin.errors import CheckpointError
from medmargin.networks.efficient_vit import EfficientViTEncoder
from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.official import load_official
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Promptable
from medmargin.storage import sha256

BOX = torch.tensor([[2.0, 3.0, 20.0, 18.0]])


def _equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_training_file_of_lite_medsam_loads(
    tmp_path: Path, tiny_medsam_lite: Promptable, randomise: Callable[[nn.Module, int], nn.Module]
) -> None:
    path = tmp_path / "medsam_lite_best.pth"
    state = {f"module.{name}": value.clone() for name, value in tiny_medsam_lite.state_dict().items()}
    torch.save({"model": state, "epoch": 3, "optimizer": {}, "loss": 0.1, "best_loss": 0.1}, path)
    randomise(tiny_medsam_lite, 1)
    load_official(tiny_medsam_lite, path, sha256=sha256(path))
    assert all(torch.equal(value, state[f"module.{name}"]) for name, value in tiny_medsam_lite.state_dict().items())


def test_an_efficient_vit_sam_checkpoint_loads(
    tmp_path: Path, randomise: Callable[[nn.Module, int], nn.Module]
) -> None:
    def build(seed: int) -> nn.Module:
        encoder = EfficientViTEncoder(
            widths=(4, 6, 8, 8, 8), depths=(1, 1, 1, 1, 1), head_dim=4, neck_width=8, neck_depth=1, out_channels=16,
            grid=8,
        )  # fmt: skip
        decoder = MaskDecoder(dim=16, heads=2, mlp_dim=24, iou_hidden=16)
        return randomise(Promptable(encoder, PromptEncoder(dim=16, grid=8, image_size=64), decoder), seed)

    trained, fresh = build(0), build(1)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "efficientvit_sam_l0.pt")
    load_official(fresh, tmp_path / "efficientvit_sam_l0.pt")
    assert _equal(fresh, trained)


def test_sam_loads_unchanged_at_its_own_size(tmp_path: Path, tiny_sam: Callable[[int], Promptable]) -> None:
    trained, fresh = tiny_sam(64), tiny_sam(64)
    save_file(trained.state_dict(), tmp_path / "sam.safetensors")
    nn.init.zeros_(fresh.image_encoder.pos_embed)
    load_official(fresh, tmp_path / "sam.safetensors")
    assert _equal(fresh, trained)


@pytest.mark.parametrize("side", [32, 96])
def test_sam_loads_at_another_size_with_resized_positions(
    tmp_path: Path, tiny_sam: Callable[[int], Promptable], side: int
) -> None:
    trained, other = tiny_sam(64), tiny_sam(side)
    torch.save(trained.state_dict(), tmp_path / "sam.pth")
    load_official(other, tmp_path / "sam.pth")
    grid, old, new = side // 8, trained.state_dict(), other.state_dict()
    for name, value in new.items():
        if name == "image_encoder.pos_embed":
            channels_first = old[name].permute(0, 3, 1, 2)
            expected = F.interpolate(channels_first, (grid, grid), mode="bilinear", align_corners=False)
            torch.testing.assert_close(value.permute(0, 3, 1, 2), expected)
        elif "blocks.1.attn.rel_pos" in name:  # the global block; bilinear on [1, 1, L, C] as published
            expected = F.interpolate(old[name][None, None], (2 * grid - 1, value.shape[1]), mode="bilinear")
            torch.testing.assert_close(value, expected[0, 0])
        else:
            assert torch.equal(value, old[name]), name
    assert other(torch.rand(1, 3, side, side), boxes=BOX).logits.isfinite().all()


def test_the_encoder_alone_loads_at_another_size(tmp_path: Path, tiny_sam: Callable[[int], Promptable]) -> None:
    torch.save(tiny_sam(64).image_encoder.state_dict(), tmp_path / "encoder.pth")
    encoder = tiny_sam(32).image_encoder
    load_official(encoder, tmp_path / "encoder.pth")
    assert encoder.pos_embed.shape == (1, 4, 4, 12)


def test_windowed_tables_are_never_resized(tmp_path: Path, tiny_sam: Callable[[int], Promptable]) -> None:
    state = tiny_sam(64).state_dict()
    state["image_encoder.blocks.0.attn.rel_pos_h"] = torch.zeros(9, 6)
    torch.save(state, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"1 of another shape: image_encoder\.blocks\.0\.attn\.rel_pos_h"):
        load_official(tiny_sam(64), tmp_path / "sam.pth")


def test_weights_of_another_system_are_refused(
    tmp_path: Path, tiny_sam: Callable[[int], Promptable], tiny_medsam_lite: Promptable
) -> None:
    torch.save(tiny_medsam_lite.state_dict(), tmp_path / "lite.pth")
    with pytest.raises(CheckpointError, match=r"lite\.pth: .* missing: image_encoder\.pos_embed.* unexpected: "):
        load_official(tiny_sam(32), tmp_path / "lite.pth")
