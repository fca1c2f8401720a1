"""Which networks an estimator can ask, whatever they segment."""

from __future__ import annotations

from collections.abc import Sequence

from medmargin.errors import ConfigError
from medmargin.inference.class_network import AnyNetwork, dropouts
from medmargin.uncertainty.estimators import Ensemble, Estimator, Evidential, MonteCarloDropout, Softmax


def require_alike(estimator: Estimator, kinds: Sequence[str]) -> None:
    """Refuse another number of networks than the estimator asks, and networks that differ.

    Args:
        kinds: what must be equal of each network, in words.

    Raises:
        ConfigError: the message says what does not fit.
    """
    needed = estimator.networks if isinstance(estimator, Ensemble) else 1
    if len(kinds) != needed:
        raise ConfigError(f"{estimator.name}: expected {needed} networks, found {len(kinds)}")
    if len(set(kinds)) > 1:
        raise ConfigError(f"{estimator.name}: expected networks that are alike, found {'; '.join(sorted(set(kinds)))}")


def require_able(estimator: Estimator, network: AnyNetwork) -> None:
    """Refuse an estimator that needs evidence, a softmax or dropout of a network without.

    Raises:
        ConfigError: the message says what is missing.
    """
    if isinstance(estimator, Evidential) and network.evidence is None:
        raise ConfigError("the network gives no evidence (it was trained without). Choose another uncertainty.")
    if isinstance(estimator, Softmax) and network.evidence is not None:
        raise ConfigError("the network gives evidence and has no softmax. Choose the evidence as uncertainty.")
    if isinstance(estimator, MonteCarloDropout) and not dropouts(network):
        raise ConfigError("Monte Carlo dropout: the network has no dropout. Train it with some, or choose another way.")
