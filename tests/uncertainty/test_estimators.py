"""Plans of the estimators."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medmargin.errors import ConfigError
from medmargin.uncertainty.estimators import (
    Ensemble,
    Estimator,
    Evidential,
    MonteCarloDropout,
    Pass,
    Snapshots,
    Softmax,
    TestTimeAugmentation,
)

ALL = [Evidential(), Softmax(), TestTimeAugmentation(), MonteCarloDropout(), Ensemble(3), Snapshots(3)]


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_a_plan_has_one_pass_per_member_and_is_the_same_every_time(estimator: Estimator) -> None:
    assert len(estimator.plan()) == estimator.members
    assert estimator.plan() == estimator.plan()
    assert len(set(estimator.plan())) == estimator.members


def test_every_estimator_has_a_name_of_its_own() -> None:
    assert len({estimator.name for estimator in ALL}) == len(ALL)


def test_the_mirrors_take_turns_and_start_with_the_picture_itself() -> None:
    assert TestTimeAugmentation().plan()[0] == Pass()
    assert [one.flip for one in TestTimeAugmentation(("none", "both")).plan()] == ["none", "both"]


def test_each_dropout_pass_has_a_seed_that_follows_the_first() -> None:
    first, again, other = MonteCarloDropout(4, seed=1), MonteCarloDropout(4, seed=1), MonteCarloDropout(4, seed=2)
    assert all(one.sampling for one in first.plan())
    assert first.plan() == again.plan()
    assert not set(first.plan()) & set(other.plan())


@pytest.mark.parametrize("kind", [Ensemble, Snapshots])
def test_each_network_is_asked_once(kind: type[Ensemble]) -> None:
    assert [one.network for one in kind(3).plan()] == [0, 1, 2]


@pytest.mark.parametrize("kind", [Ensemble, Snapshots])
def test_each_network_is_asked_under_every_mirror(kind: type[Ensemble]) -> None:
    estimator = kind(3, axes=(0, 1))
    assert estimator.members == len(set(estimator.plan())) == 12
    for index in range(3):
        assert {one.axes for one in estimator.plan() if one.network == index} == {(), (0,), (1,), (0, 1)}
    with pytest.raises(ConfigError, match="axes"):
        kind(3, axes=(0, 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ensemble(1),
        lambda: Snapshots(1),
        lambda: MonteCarloDropout(1),
        lambda: TestTimeAugmentation(("none",)),
        lambda: TestTimeAugmentation(("none", "none")),
        lambda: TestTimeAugmentation(("none", "diagonal")),  # type: ignore[arg-type]
    ],
)
def test_a_plan_that_compares_nothing_is_refused(make: Callable[[], Estimator]) -> None:
    with pytest.raises(ConfigError, match=r"(2|two) or more"):
        make()
