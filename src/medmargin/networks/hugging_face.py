"""Names of Segment Anything's weights in the `transformers` library (`SamModel`), both ways.

Trap: `SamMaskDecoderConfig.layer_norm_eps` defaults to 1e-6 where the original network uses 1e-5; with the default, a
`SamModel` answers about 1e-3 differently for the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

# official module -> (its name there, [(official part of a name, the part there)])
KEY_MAP: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "image_encoder.": (
        "vision_encoder.",
        (
            ("patch_embed.proj.", "patch_embed.projection."),
            ("blocks.", "layers."),
            ("norm1.", "layer_norm1."),
            ("norm2.", "layer_norm2."),
            ("neck.0.", "neck.conv1."),
            ("neck.1.", "neck.layer_norm1."),
            ("neck.2.", "neck.conv2."),
            ("neck.3.", "neck.layer_norm2."),
        ),
    ),
    "prompt_encoder.": (
        "prompt_encoder.",
        (
            ("pe_layer.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
            ("point_embeddings.", "point_embed."),
            ("mask_downscaling.0.", "mask_embed.conv1."),
            ("mask_downscaling.1.", "mask_embed.layer_norm1."),
            ("mask_downscaling.3.", "mask_embed.conv2."),
            ("mask_downscaling.4.", "mask_embed.layer_norm2."),
            ("mask_downscaling.6.", "mask_embed.conv3."),
        ),
    ),
    "mask_decoder.transformer.": (
        "mask_decoder.transformer.",
        (
            ("norm_final_attn.", "layer_norm_final_attn."),
            ("norm1.", "layer_norm1."),
            ("norm2.", "layer_norm2."),
            ("norm3.", "layer_norm3."),
            ("norm4.", "layer_norm4."),
        ),
    ),
    "mask_decoder.": (
        "mask_decoder.",
        (
            ("output_upscaling.0.", "upscale_conv1."),
            ("output_upscaling.1.", "upscale_layer_norm."),
            ("output_upscaling.3.", "upscale_conv2."),
            (".layers.0.", ".proj_in."),
            (".layers.1.", ".layers.0."),
            (".layers.2.", ".proj_out."),
        ),
    ),
}
_FOURIER = "prompt_encoder.shared_embedding.positional_embedding"
_FOURIER_TWIN = "shared_image_embedding.positional_embedding"  # the same matrix; files often hold only this one


def is_hugging_face(names: Iterable[str]) -> bool:
    """Tell whether these are the names of a `SamModel`."""
    return any(name.startswith("vision_encoder.") for name in names)


def from_hugging_face(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Rename the weights of a `SamModel`.

    Args:
        state: of the `SamModel`.
        names: official names wanted, those of a network's state dict.

    Returns:
        official name -> tensor for all `names` found; weights nobody asked for keep their own name.
    """
    left = dict(state)
    if _FOURIER_TWIN in left:
        left[_FOURIER] = left.pop(_FOURIER_TWIN)
    renamed = {name: left.pop(_hugging_face_name(name)) for name in names if _hugging_face_name(name) in left}
    return renamed | left


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official weights to those of a `SamModel`."""
    renamed = {_hugging_face_name(name): value for name, value in state.items()}
    if _FOURIER in renamed:
        renamed[_FOURIER_TWIN] = renamed[_FOURIER]
    return renamed


def _hugging_face_name(official: str) -> str:
    prefix = next((prefix for prefix in KEY_MAP if official.startswith(prefix)), None)
    if prefix is None:
        return official
    there, parts = KEY_MAP[prefix]
    rest = official.removeprefix(prefix)
    for own, other in parts:
        if own in rest:
            rest = rest.replace(own, other, 1)
            if own.startswith(".layers"):
                break  # the layers of a perceptron: `layers.0` is also a result
    return there + rest
