"""Opinions behind logits: reference numbers, and what holds for every input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file

from medmargin.networks.evidence import EVIDENCE, opinion

KINDS = sorted(EVIDENCE)
LOGITS = arrays(np.float32, st.tuples(*[st.integers(1, 2), st.integers(2, 5), st.integers(1, 3), st.integers(1, 3)]),
                elements=st.floats(-1e4, 1e4, width=32))  # fmt: skip


def test_the_reference_opinion_comes_back(golden: Path) -> None:
    reference = load_file(golden / "udeg-net.safetensors")
    found = opinion(reference["input.logits2d"])
    expected = {"evidence": found.evidence, "alpha": found.alpha, "belief": found.belief, "prob": found.probability}
    expected |= {"strength": found.strength[:, 0], "uncertainty": found.uncertainty[:, 0]}
    for name, value in expected.items():
        torch.testing.assert_close(value, reference[f"output.design.{name}"], atol=1e-5, rtol=1e-6, msg=name)


@given(logits=LOGITS, kind=st.sampled_from(KINDS))
def test_belief_and_uncertainty_share_one_unit_of_mass(logits: np.ndarray, kind: str) -> None:
    found = opinion(torch.from_numpy(logits), kind)
    one = torch.ones_like(found.uncertainty)
    torch.testing.assert_close(found.belief.sum(1, keepdim=True) + found.uncertainty, one, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.probability.sum(1, keepdim=True), one, atol=1e-6, rtol=0)
    assert all(part.isfinite().all() for part in found)
    assert found.evidence.min() >= 0
    assert found.uncertainty.min() > 0
    assert found.uncertainty.max() <= 1


@given(logits=LOGITS, kind=st.sampled_from(KINDS), more=st.floats(0.5, 50))
def test_uncertainty_falls_when_a_class_gains_evidence(logits: np.ndarray, kind: str, more: float) -> None:
    logits = np.clip(logits, -5, 5)
    stronger = logits.copy()
    stronger[:, 0] = np.maximum(stronger[:, 0], 0) + more
    weaker, found = opinion(torch.from_numpy(logits), kind), opinion(torch.from_numpy(stronger), kind)
    assert (found.uncertainty < weaker.uncertainty).all()


@given(size=st.floats(-30, 30))
def test_opposite_logits_are_as_uncertain_whatever_their_sign(size: float) -> None:
    logits = torch.tensor([[[[-size]], [[size]]]])
    torch.testing.assert_close(opinion(logits).uncertainty, opinion(-logits).uncertainty)
    assert (opinion(logits).probability[0, 1] > 0.5).item() == (size > 0) or abs(size) < 1e-6


@pytest.mark.parametrize(
    ("kind", "expected"), [("relu", [0.0, 0.0, 20.0]), ("exp", [np.exp(-10), 1.0, np.exp(10)]),
                           ("softplus", [np.exp(-20), np.log(2), 20.0])]
)  # fmt: skip
def test_each_kind_follows_its_formula(kind: str, expected: list[float]) -> None:
    evidence = opinion(torch.tensor([[-20.0, 0.0, 20.0]]), kind).evidence
    torch.testing.assert_close(evidence, torch.tensor([expected], dtype=torch.float32), atol=1e-8, rtol=1e-5)


def test_half_precision_is_left_for_full_and_double_is_kept() -> None:
    """bf16 holds 8 bits: 1000 + 1 + 1 would be 1000."""
    half = opinion(torch.tensor([[1000.0, 0.0]], dtype=torch.bfloat16), "relu")
    assert half.strength.dtype == torch.float32
    assert half.strength.item() == 1002
    assert opinion(torch.zeros(1, 2, dtype=torch.float64)).strength.dtype == torch.float64
