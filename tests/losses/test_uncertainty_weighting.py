"""Learned weighting: its formula, its minimum, and what keeps it from diverging."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medmargin.errors import ConfigError
from medmargin.losses.uncertainty_weighting import UncertaintyWeighted, optimal_squared_uncertainty


def _constant(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def _with_uncertainty(*values: float, **options) -> UncertaintyWeighted:
    weighting = UncertaintyWeighted([f"t{i}" for i in range(len(values))], **options)
    with torch.no_grad():
        weighting.uncertainty.copy_(torch.tensor(values))
    return weighting


def test_total_and_both_gradients_follow_the_formula() -> None:
    p, losses = (0.7, -1.4), (0.3, 2.0)
    weighting = _with_uncertainty(*p)
    terms = {f"t{i}": torch.tensor(value, requires_grad=True) for i, value in enumerate(losses)}
    report = weighting(terms)
    report.total.backward()
    assert report.total.item() == pytest.approx(
        sum(loss / (2 * q * q) + math.log(1 + q * q) for loss, q in zip(losses, p, strict=True))
    )
    for i, (loss, q) in enumerate(zip(losses, p, strict=True)):
        assert weighting.uncertainty.grad[i].item() == pytest.approx(-loss / q**3 + 2 * q / (1 + q * q), rel=1e-5)
        assert terms[f"t{i}"].grad.item() == pytest.approx(1 / (2 * q * q), rel=1e-5)


def test_it_starts_at_one_half_of_every_term() -> None:
    report = UncertaintyWeighted(["a", "b"])(_constant(a=1.0, b=3.0))
    assert report.total.item() == pytest.approx(2 + 2 * math.log(2))
    assert {name: weight.item() for name, weight in report.weights.items()} == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("regulariser", ["log1p", "log"])
def test_uncertainties_converge_to_the_closed_form_within_one_percent(regulariser) -> None:
    losses = {"tiny": 0.002, "small": 0.06, "middle": 0.4, "large": 3.0}
    weighting = UncertaintyWeighted(tuple(losses), regulariser=regulariser)
    optimiser = torch.optim.AdamW(weighting.parameters(), lr=5e-3, weight_decay=0)
    for _ in range(1200):
        optimiser.zero_grad()
        weighting(_constant(**losses)).total.backward()
        optimiser.step()
    found = weighting.uncertainty.detach().square()
    expected = optimal_squared_uncertainty(torch.tensor(list(losses.values())), regulariser=regulariser)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


@given(st.floats(1e-6, 1e3), st.sampled_from(["log1p", "log"]))
@settings(max_examples=60, deadline=None)
def test_the_closed_form_is_the_minimum(loss: float, regulariser) -> None:
    best = optimal_squared_uncertainty(torch.tensor(loss, dtype=torch.float64), regulariser=regulariser).item()

    def total(squared: float) -> float:
        return loss / (2 * squared) + (math.log1p(squared) if regulariser == "log1p" else math.log(squared) / 2)

    assert total(best) <= min(total(best * 1.01), total(best / 1.01))


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=5), st.floats(-10, 10))
@settings(max_examples=60, deadline=None)
def test_the_total_of_non_negative_terms_is_finite_and_never_negative(losses: list[float], p: float) -> None:
    weighting = _with_uncertainty(*[p] * len(losses))
    total = weighting({f"t{i}": torch.tensor(value) for i, value in enumerate(losses)}).total
    total.backward()
    assert torch.isfinite(total)
    assert total >= 0
    assert torch.isfinite(weighting.uncertainty.grad).all()


@pytest.mark.parametrize("p", [0.0, 1e-12, -1e-5, 1e-3])
def test_the_weight_is_limited_when_the_uncertainty_vanishes(p: float) -> None:
    assert _with_uncertainty(p)(_constant(t0=1.0)).weights["t0"].item() == pytest.approx(5e5, rel=1e-3)


@pytest.mark.parametrize("p", [0.0, 1e-6, -1e-6])
def test_an_uncertainty_below_the_limit_comes_back(p: float) -> None:
    weighting = _with_uncertainty(p)
    optimiser = torch.optim.Adam(weighting.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        weighting(_constant(t0=1.0)).total.backward()
        optimiser.step()
    assert weighting.uncertainty.abs().item() > 0.05


@pytest.mark.parametrize("regulariser", ["log1p", "log"])
def test_the_sign_of_an_uncertainty_does_not_matter(regulariser) -> None:
    terms = _constant(t0=0.4, t1=2.0)
    both = [_with_uncertainty(*p, regulariser=regulariser)(terms).total for p in ((0.5, 1.5), (-0.5, -1.5))]
    assert both[0] == both[1]


def test_kendalls_form_has_the_logarithm_itself_as_price() -> None:
    total = _with_uncertainty(0.25, regulariser="log")(_constant(t0=0.01)).total
    assert total.item() == pytest.approx(0.01 / (2 * 0.25**2) + math.log(0.25))
    assert total < 0


def test_fixed_terms_keep_their_factor_and_have_no_uncertainty() -> None:
    weighting = UncertaintyWeighted(["a"], fixed={"quality": 2.0})
    report = weighting(_constant(a=1.0, quality=0.25))
    assert report.total.item() == pytest.approx(0.5 + math.log(2) + 0.5)
    assert len(weighting.uncertainty) == 1
    assert report.weights["quality"].item() == 2


def test_a_negative_term_through_softplus_has_a_finite_optimum_and_without_it_none() -> None:
    def final_uncertainty(weighting: UncertaintyWeighted) -> float:
        optimiser = torch.optim.Adam(weighting.parameters(), lr=0.01)
        for _ in range(600):
            optimiser.zero_grad()
            weighting(_constant(a=-1.0)).total.backward()
            optimiser.step()
        return weighting.uncertainty.abs().item()

    expected = optimal_squared_uncertainty(torch.tensor(math.log(1 + math.exp(-1))))
    assert final_uncertainty(UncertaintyWeighted(["a"], softplus=["a"])) ** 2 == pytest.approx(
        expected.item(), rel=0.01
    )
    assert final_uncertainty(UncertaintyWeighted(["a"])) < 0.1


def test_the_report_holds_raw_terms_and_weights_ready_for_the_log() -> None:
    terms = {"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor(-2.0)}
    report = UncertaintyWeighted(["a", "b"], softplus=["b"])(terms)
    scalars = report.scalars()
    assert set(scalars) == {"loss", "loss/a", "loss/b", "weight/a", "weight/b"}
    assert scalars["loss/b"] == -2
    assert scalars["loss"] == report.total
    assert not any(value.requires_grad for value in scalars.values())


def test_uncertainties_survive_the_state_dict() -> None:
    source, copy = _with_uncertainty(0.3, 2.0), _with_uncertainty(1.0, 1.0)
    copy.load_state_dict(source.state_dict())
    terms = _constant(t0=0.4, t1=2.0)
    assert copy(terms).total == source(terms).total


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ([], {}),
        (["a", "a"], {}),
        (["a"], {"fixed": {"a": 1.0}}),
        (["a"], {"softplus": ["b"]}),
        (["a"], {"regulariser": "ln"}),
    ],
)
def test_impossible_arguments_are_refused(names: list[str], options: dict) -> None:
    with pytest.raises(ConfigError):
        UncertaintyWeighted(names, **options)
