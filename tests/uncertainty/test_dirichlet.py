"""One Dirichlet answer split in closed form, against sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import entr
from scipy.stats import dirichlet

from medmargin.uncertainty.decomposition import decompose
from medmargin.uncertainty.dirichlet import decompose_dirichlet, vacuity

alphas = st.lists(st.floats(1.0, 1e4), min_size=2, max_size=6).map(lambda values: np.array(values))


@pytest.mark.parametrize("alpha", [(1.0, 1.0), (1.0, 9.0), (2.5, 2.5, 30.0), (1.0, 1.2, 4.0, 40.0)])
def test_the_closed_form_is_what_samples_give(alpha: tuple[float, ...]) -> None:
    samples = dirichlet.rvs(alpha, size=200_000, random_state=0)  # [N, K]
    parts = decompose_dirichlet(np.array(alpha))
    for part, expected in zip(parts, decompose(samples), strict=True):
        assert part == pytest.approx(expected, abs=4e-3)
    assert parts.aleatoric == pytest.approx(entr(samples).sum(axis=1).mean(), abs=4e-3)


@given(alphas)
def test_total_is_aleatoric_plus_epistemic(alpha: np.ndarray) -> None:
    parts = decompose_dirichlet(alpha)
    assert parts.total == pytest.approx(parts.aleatoric + parts.epistemic, abs=1e-12)
    assert 0 <= parts.aleatoric <= parts.total <= np.log(len(alpha)) + 1e-12
    assert parts.epistemic >= 0


@given(alphas, st.floats(1.5, 100))
def test_more_of_the_same_evidence_leaves_less_to_learn(alpha: np.ndarray, factor: float) -> None:
    few, many = decompose_dirichlet(alpha), decompose_dirichlet(alpha * factor)
    assert many.total == pytest.approx(few.total, abs=1e-9)
    assert many.epistemic <= few.epistemic + 1e-9
    assert vacuity(alpha * factor) < vacuity(alpha)


def test_without_evidence_the_vacuity_is_one() -> None:
    assert np.array_equal(vacuity(np.ones((3, 2, 2))), np.ones((2, 2)))
    parts = decompose_dirichlet(np.ones(2))
    assert parts.total == pytest.approx(np.log(2))
    assert parts.aleatoric == pytest.approx(0.5)  # entropy of a uniform probability: integral of -q ln q twice


def test_maps_keep_their_shape_and_float32() -> None:
    alpha = np.random.default_rng(0).gamma(2, 5, (3, 4, 5)).astype(np.float32) + 1
    for part in decompose_dirichlet(alpha):
        assert part.shape == (4, 5)
        assert part.dtype == np.float32
