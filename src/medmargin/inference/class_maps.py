"""One slice's class logits, pass after pass, to its class probabilities and their uncertainty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from medmargin.networks.evidence import opinion
from medmargin.uncertainty.decomposition import Decomposition, class_entropy
from medmargin.uncertainty.dirichlet import decompose_dirichlet
from medmargin.uncertainty.moments import RunningMoments


class ClassMaps(NamedTuple):
    """What is known of a slice.

    Attributes:
        probabilities: [K, H, W], adding up to 1.
        total, aleatoric: [H, W] in nats. The aleatoric part of one pass without evidence is its total: it has no split.
        further: name -> [H, W] in [0, 1]: "vacuity" where the network gives evidence, "edge" and "edge_uncertainty"
            where it answers with edges.
    """

    probabilities: NDArray[np.float32]
    total: NDArray[np.float32]
    aleatoric: NDArray[np.float32]
    further: dict[str, NDArray[np.float32]]


class ClassMoments:
    """Running means over the passes of one slice; no pass is held after it was added.

    One pass with evidence is split by its Dirichlet. Several passes are split by their mean entropy, and there each
    pass counts with the entropy of its class probabilities alpha / S, evidence or not.

    Args:
        evidence: kind of the network's evidence (`networks.evidence`), or None for a softmax.
        passes: number of passes that will come.
    """

    def __init__(self, evidence: str | None, passes: int) -> None:
        self._evidence, self._passes = evidence, passes
        self._moments = RunningMoments(class_entropy)
        self._dirichlet: Decomposition | None = None
        self._further: dict[str, NDArray[np.float32]] = {}
        self.vacuity: NDArray[np.float32] | None = None  # [H, W] of the pass added last

    def add(self, logits: NDArray[np.float32], edges: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Take in one pass.

        Args:
            logits: [K, H, W] on the slice's grid. edges: [2, H, W] logits of no edge and edge, or None.

        Returns:
            The pass's class probabilities [K, H, W].
        """
        probabilities, further = self._answer(logits)
        self.vacuity = further.get("vacuity")
        self._moments.add(probabilities)
        if edges is not None:
            found = opinion(torch.from_numpy(edges)[None])
            further["edge"] = found.probability[0, 1].numpy()
            further["edge_uncertainty"] = found.uncertainty[0, 0].numpy()
        for name, values in further.items():
            mean = self._further.setdefault(name, np.zeros_like(values))
            mean += (values - mean) / self._moments.members
        return probabilities

    def _answer(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Turn logits into probabilities, and vacuity where there is evidence."""
        values = torch.from_numpy(logits)
        if self._evidence is None:
            return torch.softmax(values, dim=0).numpy(), {}
        found = opinion(values[None], self._evidence)
        if self._passes == 1:
            self._dirichlet = decompose_dirichlet(found.alpha[0].numpy())
        return found.probability[0].numpy(), {"vacuity": found.uncertainty[0, 0].numpy()}

    def maps(self) -> ClassMaps:
        """Return the means of the passes added."""
        parts = self._dirichlet or self._moments.decomposition()
        return ClassMaps(self._moments.probabilities, parts.total, parts.aleatoric, self._further)
