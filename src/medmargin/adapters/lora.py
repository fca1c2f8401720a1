"""Low-rank adaptation (LoRA) of the query and value rows of a fused attention projection.

LoRA: Hu et al. 2021, arXiv:2106.09685, equation 3. On the queries and values of Segment Anything, the rest frozen:
SAMed, Zhang and Liu 2023, arXiv:2304.13785. Adapters that treat the fused projection as one matrix would adapt the keys
too, hence this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import CheckpointError, ConfigError

FACTORS = ("a_q", "b_q", "a_v", "b_v")


class LoraQKV(nn.Linear):
    """A fused projection to queries, keys and values, W x + b, with q += s B_q A_q x and v += s B_v A_v x.

    It takes over weight and bias of the layer it replaces (the same parameters, under the same names) and adds the
    factors `a_q`, `a_v` [rank, C], drawn as a linear layer's weight, and `b_q`, `b_v` [C, rank], which start at 0.

    Args:
        base: the layer to replace, C inputs and 3 C outputs.
        rank: inner width of the factors.
        alpha: s = alpha / rank; None is alpha = rank.
        groups: the rows lie as [groups, 3 (q, k, v), C / groups]: 1 where the blocks q, k, v follow one another, the
            number of heads where q, k and v of one head lie next to each other.
    """

    unmerged_weight: Tensor | None

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float | None = None, groups: int = 1) -> None:
        width, rows = base.in_features, base.out_features
        if rank < 1:
            raise ConfigError(f"LoRA: rank is {rank}, expected 1 or more")
        if rows != 3 * width or width % groups:
            raise ConfigError(
                f"LoRA: a projection of {width} to {rows} values in {groups} groups is no fused projection to queries, "
                "keys and values: expected three times as many outputs as inputs"
            )
        super().__init__(width, rows, bias=base.bias is not None, device="meta")  # allocates nothing
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.groups = (rank if alpha is None else alpha) / rank, groups
        self.a_q, self.a_v = (nn.Parameter(base.weight.new_empty(rank, width)) for _ in range(2))
        self.b_q, self.b_v = (nn.Parameter(base.weight.new_zeros(width, rank)) for _ in range(2))
        for factor in (self.a_q, self.a_v):
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
        self.register_buffer("unmerged_weight", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Project [..., C] to [..., 3 C]."""
        fused = super().forward(x)
        if self.unmerged_weight is None:
            rows = self._rows(fused)
            for part, a, b in ((0, self.a_q, self.b_q), (2, self.a_v, self.b_v)):
                update = F.linear(F.linear(x, a), b) * self.scale
                rows[..., part, :].add_(update.unflatten(-1, (self.groups, -1)))  # in place: a view of `fused`
        return fused

    def merge(self) -> None:
        """Add the factors to the weight, so that they cost nothing at inference; the plain weight is kept aside."""
        if self.unmerged_weight is not None:
            return
        self.unmerged_weight = self.weight.detach().clone()
        with torch.no_grad():
            rows = self._rows(self.weight.T)  # [C inputs, groups, 3, C / groups]
            for part, a, b in ((0, self.a_q, self.b_q), (2, self.a_v, self.b_v)):
                rows[..., part, :].add_((self.scale * b @ a).T.unflatten(-1, (self.groups, -1)))

    def unmerge(self) -> None:
        """Put the plain weight back, bit for bit."""
        if self.unmerged_weight is not None:
            with torch.no_grad():
                self.weight.copy_(self.unmerged_weight)
            self.unmerged_weight = None

    def train(self, mode: bool = True) -> LoraQKV:
        if mode:
            self.unmerge()  # merged factors get no gradient
        return super().train(mode)

    def _rows(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.groups, 3, -1))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.unmerged_weight is not None:  # a file holds the plain weight and the factors, never both in one
            destination[f"{prefix}weight"] = self.unmerged_weight

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        self.unmerge()
        super()._load_from_state_dict(*arguments, **named)


def add_lora(network: nn.Module, *, rank: int = 4, alpha: float | None = None) -> list[str]:
    """Replace every linear layer called `qkv` by one with LoRA on its queries and values; freezes nothing.

    The rows of `qkv` are the blocks q, k, v, unless the module that owns it says `qkv_layout = "per-head"` (q, k and v
    of one of its `heads` lie next to each other).

    Args:
        network: changed in place. Its outputs do not change until the factors are trained.
        rank: inner width of the factors. alpha: their scale is alpha / rank; None is alpha = rank.

    Returns:
        The names of the replaced layers.

    Raises:
        ConfigError: no such layer, a layer that already has LoRA, or an impossible rank.
    """
    owners = [
        (name, module) for name, module in network.named_modules() if isinstance(module._modules.get("qkv"), nn.Linear)
    ]
    if not owners:
        raise ConfigError("LoRA: the network has no linear layer called 'qkv' to adapt. Use rank 0 to train it whole")
    for name, owner in owners:
        layer = owner.get_submodule("qkv")
        if isinstance(layer, LoraQKV):
            raise ConfigError(f"LoRA: {name}.qkv already has it. Build the network again for another rank")
        groups = owner.heads if getattr(owner, "qkv_layout", "qkv") == "per-head" else 1
        owner.qkv = LoraQKV(layer, rank=rank, alpha=alpha, groups=groups)
    return [f"{name}.qkv".removeprefix(".") for name, _ in owners]


def merge_lora(network: nn.Module) -> None:
    """Add all factors to their weights for faster inference; training or loading weights undoes it."""
    for _, layer in _adapted(network):
        layer.merge()


def unmerge_lora(network: nn.Module) -> None:
    """Undo `merge_lora`, bit for bit."""
    for _, layer in _adapted(network):
        layer.unmerge()


def lora_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the factors alone: name -> tensor, detached."""
    return {
        f"{name}.{factor}".removeprefix("."): layer.get_parameter(factor).detach()
        for name, layer in _adapted(network)
        for factor in FACTORS
    }


def load_lora(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the factors of a network with the same layers and rank; all of them or none.

    Raises:
        CheckpointError: names or shapes that do not fit.
    """
    unmerge_lora(network)
    own = lora_state(network)
    shapes = {name: list(factor.shape) for name, factor in own.items()}
    found = {name: list(factor.shape) for name, factor in state.items()}
    if found != shapes:
        names = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
        first = names[0]
        raise CheckpointError(
            f"LoRA: {len(names)} factors do not fit the network, the first is {first}: found "
            f"{found.get(first, 'nothing')}, expected {shapes.get(first, 'nothing')}. Build the network with the rank "
            "and the encoder the factors were trained with"
        )
    for name, factor in own.items():
        factor.copy_(state[name])


def _adapted(network: nn.Module) -> Iterator[tuple[str, LoraQKV]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, LoraQKV))
