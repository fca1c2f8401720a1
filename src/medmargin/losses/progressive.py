"""Progressive weighting of pixels: from the certain ones to the uncertain edges, as training goes on.

The idea is that of UDEG-Net (Zhao et al. 2025, doi:10.1109/TMI.2025.3535478), whose paper gives no formula in what can
be read of it: the formulas are this toolkit's own. The schedule "exp" is the annealing factor of DEviS
(arXiv:2301.00349).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from medmargin.losses.precision import full_precision

_SMALLEST = 1e-7  # where every pixel is entirely uncertain all weights are 0: their ratio to the mean must be 1


def cosine(progress: float) -> float:
    """Return 0.5 (1 - cos(pi t)): slow at both ends."""
    return 0.5 * (1 - math.cos(math.pi * progress))


def linear(progress: float) -> float:
    """Return t."""
    return progress


def exponential(progress: float, *, start: float = 0.01) -> float:
    """Return start^(1 - t): near 0 for most of the training, 1 at its end."""
    return float(start ** (1 - progress))


# name -> share rho of the weight on uncertain pixels, from the share t in [0, 1] of the training that is done
SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "linear": linear, "exp": exponential}


def progressive_weights(
    uncertainty: Tensor, proximity: Tensor, rho: float, *, beta: float = 1.0, eta: float = 0.5
) -> Tensor:
    """Return the weight of every pixel, with mean 1 over each image and without gradient.

    Were the gradient to pass, a network could lower its loss by claiming to be certain.

    Args:
        uncertainty: [B, *spatial] u in [0, 1].
        proximity: [B, *spatial] B in [0, 1], 1 on an edge (`edge_targets.edge_proximity`).
        rho: in [0, 1], 0 prefers certain pixels, 1 uncertain ones.
        beta: how much more an uncertain pixel counts on an edge.
        eta: in [0, 1], how far the weights may differ from 1.

    Equation: w = (1 - rho)(1 - u) + rho u (1 + beta B); W = (1 - eta) + eta w / mean_image(w).
    """
    u = full_precision(uncertainty.detach())
    w = (1 - rho) * (1 - u) + rho * u * (1 + beta * full_precision(proximity.detach())) + _SMALLEST
    mean = w.flatten(1).mean(1).view(-1, *[1] * (w.ndim - 1))
    return (1 - eta) + eta * w / mean
