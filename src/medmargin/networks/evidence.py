"""Logits as evidence for classes: the opinion of subjective logic behind an evidential segmentation.

Sensoy, Kaplan, Kandemir 2018, arXiv:1806.01768, equations 1 and 2; on pixels with softplus evidence: TBraTS, Zou et al.
2022, arXiv:2206.09309. The evidence e_k of class k gives a Dirichlet distribution over the K class probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def _bounded_exponential(logits: Tensor) -> Tensor:
    return logits.clamp(-10, 10).exp()


EVIDENCE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "softplus": F.softplus,
    "exp": _bounded_exponential,
    "relu": F.relu,
}
"""How a logit becomes evidence >= 0; "exp" is cut at logits of -10 and 10."""


class Opinion(NamedTuple):
    """What the evidence of K classes says; sum of belief + uncertainty = 1 everywhere.

    Attributes:
        evidence: e [B, K, *spatial] >= 0.
        alpha: e + 1 [B, K, *spatial], the parameters of the Dirichlet distribution.
        strength: S = sum of alpha [B, 1, *spatial] >= K.
        belief: e / S [B, K, *spatial].
        uncertainty: K / S [B, 1, *spatial] in (0, 1], the share of belief given to no class.
        probability: alpha / S [B, K, *spatial], the expected class probabilities.
    """

    evidence: Tensor
    alpha: Tensor
    strength: Tensor
    belief: Tensor
    uncertainty: Tensor
    probability: Tensor


def opinion(logits: Tensor, kind: str = "softplus") -> Opinion:
    """Form the opinion behind logits [B, K, *spatial], in float32 or better; differentiable.

    Upsample logits before, not opinions after: evidence is not linear in them.

    Args:
        logits: of K >= 2 classes on axis 1.
        kind: a key of `EVIDENCE`.
    """
    evidence = EVIDENCE[kind](logits.to(torch.promote_types(logits.dtype, torch.float32)))
    alpha = evidence + 1
    strength = alpha.sum(1, keepdim=True)
    return Opinion(evidence, alpha, strength, evidence / strength, logits.shape[1] / strength, alpha / strength)
