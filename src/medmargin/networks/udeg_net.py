"""UDEG-Net: Segment Anything that needs no click, because it prompts itself with the edge, and knows its doubt.

Zhao et al. 2025, "Uncertainty-Driven Edge Prompt Generation Network for Medical Image Segmentation", IEEE TMI
44(10):3950-3961, doi:10.1109/TMI.2025.3535478. The encoder is adapted as in SAMed (arXiv:2304.13785), the evidence is
that of TBraTS (arXiv:2206.09309).

Deviations: the paper's layers, sizes and prompt form are not published; they are a design of this toolkit. The encoder
may also be TinyViT or the compact one, and may be trained whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medmargin.adapters.lora import add_lora, lora_state
from medmargin.errors import CheckpointError, ConfigError, PromptError
from medmargin.networks.edge_prompts import EdgePromptGenerator
from medmargin.networks.evidence import EVIDENCE
from medmargin.networks.mask_decoder import MaskDecoder, class_decoder
from medmargin.networks.prediction import Prediction
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Promptable
from medmargin.networks.sam_pixels import sam_input
from medmargin.networks.starting_points import promptable_network
from medmargin.networks.taps import tap_layout, tapped
from medmargin.networks.weight_files import load_strictly

Pixels = Literal["unit", "standardised"]
Base = Literal["sam-vit-b", "sam-vit-l", "sam-vit-h", "sam-vit-tiny", "medsam-lite", "compact"]
_ENCODERS: dict[str, tuple[Any, int]] = {  # name of the encoder, and what the image size is a multiple of
    "sam-vit-b": ("vit-b", 16),
    "sam-vit-l": ("vit-l", 16),
    "sam-vit-h": ("vit-h", 16),
    "sam-vit-tiny": ("vit-tiny", 8),
    "medsam-lite": ("tiny-vit", 4),
    "compact": ("compact", 8),
}
_FLAG_QUANTILE = 0.95
_FLAG_DECAY = 0.95
_NOTHING_OBSERVED = -1.0  # stands for NaN in a state dict, because files of weights hold finite numbers only


class UDEGNet(nn.Module):
    """Segment K classes without prompts, or with those of a user.

    Args:
        image_encoder: one that can be tapped, see `taps`.
        prompt_encoder: of the encoder's width and grid.
        mask_decoder: of K masks, class 0 the background (`mask_decoder.class_decoder`).
        edge_generator: None leaves the edge prompts out.
        evidence: how logits are read, a key of `evidence.EVIDENCE`; None is a softmax head.
        pixels: what the encoder's weights expect: images in [0, 1] ("unit", as MedSAM), or minus SAM's mean and divided
            by its standard deviation ("standardised").
        dropout: probability of leaving a channel of the image embedding out (of the fused edge features: see
            `EdgePromptGenerator`).

    Attributes:
        encoder_is_frozen: the image encoder keeps its weights and statistics, LoRA's factors aside.
        flag_threshold: [] float32, the uncertainty above which a pixel is worth a look: the 95 % quantile on training
            images, NaN before the first `observe`. In a state dict NaN is -1.
    """

    flag_threshold: Tensor

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        edge_generator: EdgePromptGenerator | None = None,
        *,
        evidence: str | None = "softplus",
        pixels: Pixels = "unit",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if evidence is not None and evidence not in EVIDENCE:
            raise ConfigError(f"evidence is '{evidence}': choose one of {', '.join(EVIDENCE)}, or none for softmax")
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.edge_generator = edge_generator
        self.evidence, self.pixels = evidence, pixels
        self.encoder_is_frozen = False
        self.dropout = nn.Dropout2d(dropout) if dropout else None
        self.register_buffer("flag_threshold", torch.tensor(float("nan")))

    @property
    def image_size(self) -> int:
        """Side of the network input in pixels."""
        return self.prompt_encoder.image_size

    @property
    def classes(self) -> int:
        """Number K of classes, with the background."""
        return self.mask_decoder.num_masks

    def forward(
        self,
        image: Tensor,
        *,
        boxes: Tensor | None = None,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Prediction:
        """Segment B images; a user's prompts, if any, are given for each of them.

        Args:
            image: [B, 3, S, S] in [0, 1].
            boxes: [B, 4] (x_min, y_min, x_max, y_max) in pixels.
            points: [B, P, 2] (x, y) in pixels; point_labels: [B, P]: 1 inside, 0 outside, -1 no click.
            masks: [B, 1, Q, Q] logits of a coarse mask.

        Returns:
            Prediction with logits [B, K, Q, Q]; with edge prompts also edges [B, 2, Q, Q] (non-edge, edge) and the
            edge logits of coarser levels in `deep`, the finest last ([B, 2, G, G] twice, [B, 2, 2G, 2G]).

        Raises:
            PromptError: prompts of another number of images, or points without labels.
        """
        _check_prompts(len(image), boxes=boxes, points=points, point_labels=point_labels, masks=masks)
        seen = image if self.pixels == "unit" else sam_input(255 * image, self.image_size)
        encoded = tapped(self.image_encoder, seen)
        if self.dropout is not None:
            encoded = encoded._replace(features=self.dropout(encoded.features))
        sparse, dense = self.prompt_encoder(boxes=boxes, points=points, point_labels=point_labels, masks=masks)
        sparse = sparse.expand(len(image), -1, -1)  # one row of no tokens, where the user gives none
        edges, deep = None, ()
        if self.edge_generator is not None:
            found = self.edge_generator(image, encoded, self.prompt_encoder.pe_layer)
            if masks is not None:  # the user's mask comes on top of the edge prompt, it does not replace it
                dense = dense + self.prompt_encoder.no_mask_embed.weight[..., None, None]
            sparse, dense = torch.cat([sparse, found.tokens], dim=1), dense + found.dense
            edges, deep = found.edges, found.deep
        logits, _ = self.mask_decoder(
            encoded.features, self.prompt_encoder.dense_positions(), sparse, dense, encoded.skips
        )
        return Prediction(logits, edges=edges, deep=deep)

    @torch.no_grad()
    def observe(self, uncertainty: Tensor) -> None:
        """Move `flag_threshold` towards the 95 % quantile of the uncertainty of a training batch, of any shape.

        The threshold is an exponential mean that remembers about the last 20 batches.
        """
        values = uncertainty.detach().float().flatten()
        rank = max(1, round(_FLAG_QUANTILE * len(values)))
        # torch.quantile stops at 16 million values, kthvalue is refused where an accelerator must be deterministic
        quantile = values.sort().values[rank - 1]
        moved = torch.lerp(quantile, self.flag_threshold, _FLAG_DECAY)
        self.flag_threshold.copy_(torch.where(self.flag_threshold.isnan(), quantile, moved))

    def train(self, mode: bool = True) -> UDEGNet:
        """Set the mode; the batch normalisation of a frozen encoder keeps its statistics in training too."""
        super().train(mode)
        if self.encoder_is_frozen:
            for part in self.image_encoder.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}flag_threshold"] = self.flag_threshold.detach().nan_to_num(nan=_NOTHING_OBSERVED)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        with torch.no_grad():
            self.flag_threshold.masked_fill_(self.flag_threshold == _NOTHING_OBSERVED, float("nan"))


def udeg_net(
    base: Base,
    *,
    classes: int,
    image_size: int,
    edge_prompts: bool = True,
    edge_channels: int = 64,
    edge_tokens: int = 8,
    evidence: str | None = "softplus",
    lora_rank: int = 4,
    freeze_encoder: bool = True,
    init: str = "none",
    pixels: Pixels = "unit",
    dropout: float = 0.0,
    gradient_checkpointing: bool = False,
) -> UDEGNet:
    """Build UDEG-Net on a promptable network.

    Trained are the factors of LoRA or the whole encoder, the edge prompt generator, the decoder but for its quality
    head, which is not used, and the prompt encoder's `no_mask_embed`; the rest is frozen.

    Args:
        base: promptable network whose encoder, prompt encoder and decoder are taken over.
        classes: K >= 2, with the background.
        image_size: side of the network input in pixels, a multiple of 16 (sam-vit), 8 (compact) or 4 (medsam-lite).
        edge_prompts: False leaves the generator out.
        edge_channels, edge_tokens: width of the generator, a multiple of 8, and number of its tokens.
        evidence: "softplus", "exp", "relu", or None for a softmax head.
        lora_rank: of the encoder's adaptation; 0 trains the whole encoder instead.
        freeze_encoder: freeze all of an encoder with LoRA but its factors, even where it is random; False trains both.
        init: weights of the base: "none", "shipped" (compact only) or a file of official weights.
        pixels: what those weights expect, see `UDEGNet`.
        dropout: probability of leaving out a channel of the image embedding and of the fused edge features.
        gradient_checkpointing: trade time for memory in the image encoder.

    Raises:
        ConfigError: a combination that is not possible.
        CheckpointError: the weights do not fit or are damaged.
    """
    if base not in _ENCODERS:
        raise ConfigError(f"base is '{base}': choose one of {', '.join(_ENCODERS)}")
    name, step = _ENCODERS[base]
    if image_size < step or image_size % step:
        raise ConfigError(f"image_size is {image_size}: {base} expects a multiple of {step}")
    promptable = promptable_network(
        name, image_size=image_size, init=init, gradient_checkpointing=gradient_checkpointing
    )
    return from_promptable(
        promptable, classes=classes, edge_prompts=edge_prompts, edge_channels=edge_channels, edge_tokens=edge_tokens,
        evidence=evidence, pixels=pixels, lora_rank=lora_rank, freeze_encoder=freeze_encoder, dropout=dropout,
    )  # fmt: skip


def from_promptable(
    promptable: Promptable,
    *,
    classes: int,
    edge_prompts: bool = True,
    edge_channels: int = 64,
    edge_tokens: int = 8,
    evidence: str | None = "softplus",
    pixels: Pixels = "unit",
    lora_rank: int = 4,
    freeze_encoder: bool = True,
    dropout: float = 0.0,
) -> UDEGNet:
    """Build UDEG-Net on a promptable network that is there already; see `udeg_net`.

    Args:
        promptable: its encoder and prompt encoder are taken over and changed, its decoder is copied.
    """
    if classes < 2:
        raise ConfigError(f"classes is {classes}: expected 2 or more, the background is one of them")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout is {dropout}: expected from 0 up to, but not, 1")
    encoder, prompt_encoder = promptable.image_encoder, promptable.prompt_encoder
    generator = None
    if edge_prompts:
        generator = EdgePromptGenerator(
            tap_layout(encoder),
            dim=prompt_encoder.dim,
            pixels_per_edge=prompt_encoder.image_size // (4 * prompt_encoder.grid),
            channels=edge_channels,
            tokens=edge_tokens,
            mask_channels=prompt_encoder.get_parameter("mask_downscaling.6.weight").shape[1],
            dropout=dropout,
        )
        generator.dense.start_from(prompt_encoder.mask_downscaling)
    decoder = class_decoder(promptable.mask_decoder, classes)
    network = UDEGNet(encoder, prompt_encoder, decoder, generator, evidence=evidence, pixels=pixels, dropout=dropout)
    _freeze_base(network, encoder=lora_rank > 0 and freeze_encoder)
    if lora_rank:
        add_lora(encoder, rank=lora_rank)
    return network


def _freeze_base(network: UDEGNet, *, encoder: bool) -> None:
    network.prompt_encoder.requires_grad_(False)
    network.prompt_encoder.no_mask_embed.requires_grad_(True)
    network.mask_decoder.iou_prediction_head.requires_grad_(False)
    network.image_encoder.requires_grad_(not encoder)
    network.encoder_is_frozen = encoder
    network.train(network.training)


def trained_state(network: UDEGNet) -> dict[str, Tensor]:
    """Return what training changes, for a small file: name -> tensor.

    With LoRA the base belongs to it: weights that were random (init none) are not in it.
    """
    trained = _trained_names(network)
    return {name: value for name, value in network.state_dict().items() if name in trained}


def load_trained(network: UDEGNet, state: Mapping[str, Tensor], *, origin: str = "trained weights") -> None:
    """Load what `trained_state` returned into a network of the same base; all of it or nothing.

    Raises:
        CheckpointError: missing or unexpected names, or other shapes.
    """
    trained = _trained_names(network)
    untouched = {name: value for name, value in network.state_dict().items() if name not in trained}
    frozen = sorted(state.keys() & untouched.keys())
    if frozen:
        raise CheckpointError(
            f"{origin}: holds {len(frozen)} weights this network keeps frozen, the first is {frozen[0]}. "
            "Build the network they were trained with, above all with its LoRA rank"
        )
    load_strictly(network, {**untouched, **state}, origin=origin)


def _trained_names(network: UDEGNet) -> set[str]:
    """Name the trained parts by where they stand, not by `requires_grad`, which is off once a network only predicts."""
    factors = {f"image_encoder.{name}" for name in lora_state(network.image_encoder)}
    whole: tuple[str, ...] = ("edge_generator.", "mask_decoder.", "prompt_encoder.no_mask_embed.", "flag_threshold")
    if not network.encoder_is_frozen:
        whole += ("image_encoder.",)
    return factors | {name for name in network.state_dict() if name.startswith(whole)}


def _check_prompts(images: int, **prompts: Tensor | None) -> None:
    if (prompts["points"] is None) != (prompts["point_labels"] is None):
        raise PromptError("points and point_labels belong together: give both or neither")
    for name, prompt in prompts.items():
        if prompt is not None and len(prompt) != images:
            raise PromptError(f"{name}: given for {len(prompt)} images, expected one row for each of the {images}")
