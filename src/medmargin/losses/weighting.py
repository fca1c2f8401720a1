"""How several loss terms become one number: what every weighting returns, and the plain fixed one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class LossReport:
    """A loss and where it comes from.

    Attributes:
        total: [] the number to differentiate.
        terms: name -> [] value of each term before weighting, detached.
        weights: name -> [] factor of each term in the total, detached.
    """

    total: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, Tensor]

    def scalars(self) -> dict[str, Tensor]:
        """Return everything worth logging, flat: "loss", "loss/<term>" and "weight/<term>", all detached."""
        return {
            "loss": self.total.detach(),
            **{f"loss/{name}": value for name, value in self.terms.items()},
            **{f"weight/{name}": value for name, value in self.weights.items()},
        }


class FixedWeighted(nn.Module):
    """The sum of the terms, each times a constant.

    Args:
        weights: name -> factor of each term.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.factors = dict(weights)

    def forward(self, terms: Mapping[str, Tensor]) -> LossReport:
        """Weigh the terms: name -> [] differentiable value, exactly the names of the constructor."""
        weighted = [factor * terms[name] for name, factor in self.factors.items()]
        return LossReport(
            total=sum(weighted[1:], start=weighted[0]),
            terms={name: terms[name].detach() for name in self.factors},
            weights={name: terms[name].detach().new_tensor(factor) for name, factor in self.factors.items()},
        )
