"""Loss terms weighted by learned uncertainties instead of by hand.

Kendall et al. 2018, arXiv:1705.07115 (eq. 7), in the form of Liebel & Koerner 2018, arXiv:1805.06334, which the sister
work of U-MedSAM uses (UU-Mamba, arXiv:2405.17496): L = sum_i L_i / (2 p_i^2) + ln(1 + p_i^2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.losses.weighting import LossReport

Regulariser = Literal["log1p", "log"]
_SMALLEST = 1e-3  # below, 1 / (2 p^2) passes half a million and one step throws the network away


def optimal_squared_uncertainty(loss: Tensor, *, regulariser: Regulariser = "log1p") -> Tensor:
    """Return the p^2 that minimises the weighted sum while the term stays constant.

    Args:
        loss: any shape, >= 0, the constant term L.
        regulariser: "log1p" for ln(1 + p^2), "log" for ln p.

    Equation: p^2 = (L + sqrt(L^2 + 8 L)) / 4 for "log1p", p^2 = L for "log".
    """
    if regulariser == "log":
        return loss
    return (loss + (loss.square() + 8 * loss).sqrt()) / 4


class UncertaintyWeighted(nn.Module):
    """Sum of loss terms, each divided by twice its learned squared uncertainty p^2, plus a price for being uncertain.

    The uncertainties belong in an optimiser group without weight decay (`optim.parameter_groups`). Sign does not
    matter; |p| is kept at 1e-3 or more, and the gradient passes that limit so that a stopped p can come back.

    Args:
        names: the weighted terms; one uncertainty each, starting at `initial`.
        fixed: name -> constant factor of further terms that take no part in the weighting.
        softplus: weighted terms that can be negative: ln(1 + e^L) enters, for a negative term makes p diverge.
        initial: start value of every p.
        regulariser: "log1p" is ln(1 + p^2), never negative; "log" is Kendall's ln p.

    Raises:
        ConfigError: no weighted term, a name twice, an unknown regulariser, or a softplus name that is not weighted.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        fixed: Mapping[str, float] | None = None,
        softplus: Collection[str] = (),
        initial: float = 1.0,
        regulariser: Regulariser = "log1p",
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.fixed = dict(fixed or {})
        self.softplus = frozenset(softplus)
        self.regulariser = regulariser
        everything = [*self.names, *self.fixed]
        if not self.names or len(set(everything)) != len(everything):
            raise ConfigError(f"loss terms are {everything}: expected one weighted name or more, each name once.")
        if self.softplus - set(self.names):
            unknown = sorted(self.softplus - set(self.names))
            raise ConfigError(f"softplus names {unknown}, but the weighted terms are {list(self.names)}.")
        if regulariser not in ("log1p", "log"):
            raise ConfigError(f"regulariser is '{regulariser}': expected 'log1p' or 'log'.")
        self.uncertainty = nn.Parameter(torch.full((len(self.names),), float(initial)))

    def forward(self, terms: Mapping[str, Tensor]) -> LossReport:
        """Weigh the terms: name -> [] differentiable value, exactly the weighted and fixed names.

        Equation: sum_i L_i / (2 p_i^2) + R(p_i) + sum_j c_j L_j, R(p) = ln(1 + p^2) or ln |p|.
        """
        uncertainty = self._limited_uncertainty()
        losses = torch.stack([F.softplus(terms[name]) if name in self.softplus else terms[name] for name in self.names])
        weights = 1 / (2 * uncertainty.square())
        price = uncertainty.square().log1p() if self.regulariser == "log1p" else uncertainty.log()
        total = (weights * losses + price).sum()
        for name, factor in self.fixed.items():
            total = total + factor * terms[name]
        return LossReport(
            total=total,
            terms={name: terms[name].detach() for name in (*self.names, *self.fixed)},
            weights={
                **dict(zip(self.names, weights.detach().unbind(), strict=True)),
                **{name: total.detach().new_tensor(factor) for name, factor in self.fixed.items()},
            },
        )

    def _limited_uncertainty(self) -> Tensor:
        """Return |p| >= 1e-3 with the gradient of |p| everywhere; p = 0 counts as positive."""
        sign = torch.where(self.uncertainty < 0, -1.0, 1.0)
        magnitude = self.uncertainty * sign
        return magnitude + (magnitude.clamp(min=_SMALLEST) - magnitude).detach()
