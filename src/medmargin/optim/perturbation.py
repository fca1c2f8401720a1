"""The step uphill of sharpness-aware minimisation, and the sharpness it measures.

Foret et al. 2021, arXiv:2010.01412 (eq. 2); adaptive variant Kwon et al. 2021, arXiv:2102.11600.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_TINY = 1e-12


@torch.no_grad()
def ascent(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], *, rho: float, adaptive: bool = False
) -> list[Tensor]:
    """Return the perturbation of length rho along which the loss rises fastest, to first order.

    The scale of the gradients cancels, so that gradients of a scaled loss (mixed precision) serve as they are.
    Gradients that are not finite point nowhere and give zeros.

    Args:
        parameters: any shapes, not changed.
        gradients: one per parameter, same shapes.
        rho: length over ALL parameters together, in units of the weights.
        adaptive: measure each weight relative to its size; rho is then about ten times larger.

    Equation: e = rho g / (||g||_2 + 1e-12); adaptive: e = rho w^2 g / (||w g||_2 + 1e-12).
    """
    if not parameters:
        return []
    pairs = list(zip(parameters, gradients, strict=True))
    norms = [_norm(w.abs() * g if adaptive else g) for w, g in pairs]
    norm = _norm(torch.stack([part.to(norms[0]) for part in norms]))
    scale, is_finite = rho / (norm + _TINY), torch.isfinite(norm)
    offsets = [w.square() * g if adaptive else g for w, g in pairs]
    return [torch.where(is_finite.to(e.device), e * scale.to(e), 0.0) for e in offsets]


@contextmanager
def displaced(parameters: Sequence[Tensor], offsets: Sequence[Tensor]) -> Iterator[None]:
    """Add the offsets to the parameters and put the exact former values back on leaving, also after an error."""
    saved = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, offset in zip(parameters, offsets, strict=True):
            parameter.add_(offset)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, saved, strict=True):
                parameter.copy_(value)


def sharpness(loss: Callable[[], Tensor], parameters: Iterable[Tensor], *, rho: float) -> float:
    """Return how much the loss rises within a ball of radius rho: max over ||e|| = rho of L(w + e) - L(w).

    The maximum is taken to first order, along the gradient. Gradients in `.grad` and weights stay as they are; put the
    network in evaluation mode, or its batch-norm layers see the batch twice.

    Args:
        loss: computes L [] from the current weights, without a backward pass; deterministic.
        parameters: the weights to move; those without influence on the loss stay.
        rho: radius in units of the weights.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    before = loss()
    gradients = torch.autograd.grad(before, trainable, allow_unused=True)
    moved = [(w, g) for w, g in zip(trainable, gradients, strict=True) if g is not None]
    weights, slopes = [w for w, _ in moved], [g for _, g in moved]
    with torch.no_grad(), displaced(weights, ascent(weights, slopes, rho=rho)):
        return float(loss() - before)


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
