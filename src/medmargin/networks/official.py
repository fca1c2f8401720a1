"""Loading the checkpoints their authors published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.hugging_face import from_hugging_face, is_hugging_face
from medmargin.networks.sam_vit import SamViT
from medmargin.networks.weight_files import load_strictly, read_weights


def load_official(network: nn.Module, path: Path | str, *, sha256: str | None = None) -> None:
    """Load the official weights of LiteMedSAM, SAM, MedSAM or EfficientViT-SAM, all of them or none.

    Accepts a bare state dict, one wrapped by a training script, and SAM in the names of Hugging Face's `SamModel`, as
    safetensors or as a PyTorch file, from which only tensors are read. The position tables of SAM's encoder are resized
    where the network was built for another image size.

    Args:
        network: built at the size of the weights, for example by `medsam_lite` or `sam_vit`.
        path: the checkpoint.
        sha256: its checksum in hexadecimal, where one is known.

    Raises:
        CheckpointError: wrong checksum, damaged file, code in the file (never executed), values that are not finite, or
            names and shapes that do not fit (all are listed by kind).
    """
    state = read_weights(path, sha256=sha256)
    own = network.state_dict()
    if is_hugging_face(state):
        state = from_hugging_face(state, own)
    load_strictly(network, _resized_positions(network, state), origin=str(path))


def _resized_positions(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring the position tables of every SAM encoder in `network` to its grid; windowed tables keep their size."""
    resized = dict(state)
    for prefix, encoder in _sam_encoders(network):
        positions = f"{prefix}pos_embed"
        if positions in resized and resized[positions].ndim == 4:
            resized[positions] = _resize_grid(resized[positions], encoder.grid)
        for index, block in enumerate(encoder.blocks):
            for axis in "hw":
                table = f"{prefix}blocks.{index}.attn.rel_pos_{axis}"
                if not block.window and table in resized and resized[table].ndim == 2:
                    resized[table] = _resize_rows(resized[table], 2 * encoder.grid - 1)
    return resized


def _sam_encoders(network: nn.Module) -> Iterator[tuple[str, SamViT]]:
    for name, module in network.named_modules():
        if isinstance(module, SamViT):
            yield f"{name}." if name else "", module


def _resize_grid(table: Tensor, side: int) -> Tensor:
    """Resize a position table [1, G, G, C] to [1, side, side, C], bilinearly."""
    if table.shape[1:3] == (side, side):
        return table
    channels_first = table.float().permute(0, 3, 1, 2)
    resized = F.interpolate(channels_first, (side, side), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()


def _resize_rows(table: Tensor, rows: int) -> Tensor:
    """Resize a relative-position table [L, C] to [rows, C], linearly."""
    if len(table) == rows:
        return table
    return F.interpolate(table.float().T[None], rows, mode="linear", align_corners=False)[0].T.contiguous()
