"""Distillation: teach a small image encoder the embedding of a large one.

The L2 loss on embeddings of "Efficient MedSAMs" (Ma et al. 2024, arXiv:2412.16085) and of U-MedSAM's third version.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from medmargin.losses.precision import full_precision


def embedding_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two embeddings; the teacher's gets no gradient.

    Args:
        student: [B, C, *grid] embedding of the encoder in training.
        teacher: [B, C, *grid] embedding of the frozen encoder on the same images.

    Raises:
        ValueError: the two embeddings differ in shape.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"embeddings differ: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")
    return F.mse_loss(full_precision(student), full_precision(teacher.detach()))
