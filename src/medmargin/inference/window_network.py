"""Networks run on windows of a volume, every pass of an estimator averaged before a window is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medmargin.errors import CheckpointError, ConfigError
from medmargin.inference.class_network import AnyNetwork, sampling_from
from medmargin.inference.estimator_fit import require_able, require_alike
from medmargin.inference.network import device_of
from medmargin.networks.evidence import Opinion, opinion
from medmargin.networks.prediction import Prediction
from medmargin.uncertainty.estimators import Estimator, Pass

Precision = Literal["float32", "bf16"]


class VolumeNetwork(AnyNetwork, Protocol):
    """A torch module that segments windows of a volume, or whole slices.

    Attributes:
        classes: K with the background, or the number of regions. regions: whether each has a sigmoid of its own.
        dims: 2 or 3. channels: of its input.
    """

    classes: int
    regions: bool
    dims: int
    channels: int

    def __call__(self, image: Tensor) -> Prediction:
        """Answer windows [B, C, *spatial] with logits [B, O, *spatial]."""
        ...

    def eval(self) -> nn.Module:
        """Leave training mode."""
        ...


@dataclass(frozen=True)
class Answers:
    """What the networks say about a voxel: numbers of which any weighted mean makes sense.

    Probabilities come first, then, where the uncertainty has parts, the expected entropy (one for exclusive classes,
    one per region), then the vacuity where there is evidence.

    Attributes:
        outputs: classes or regions. regions: whether each stands on its own.
        evidence: of the networks. passes: that are averaged.
    """

    outputs: int
    regions: bool
    evidence: str | None
    passes: int

    @property
    def structures(self) -> int:
        """Number of structures, without the background."""
        return self.outputs if self.regions else self.outputs - 1

    @property
    def is_split(self) -> bool:
        """Whether there is an expected entropy."""
        return self.passes > 1 or self.evidence is not None

    @property
    def entropies(self) -> int:
        """Number of expected entropies."""
        return (self.outputs if self.regions else 1) if self.is_split else 0

    @property
    def channels(self) -> int:
        """Numbers per voxel."""
        return self.outputs + self.entropies + (self.evidence is not None)

    def of(self, logits: Tensor) -> Tensor:
        """Turn the logits [B, O, *spatial] of one pass into its answers [B, channels, *spatial].

        One pass with evidence is split by its Dirichlet, E[H(q)] = sum_k p_k (psi(S + 1) - psi(alpha_k + 1)), see
        `uncertainty.dirichlet`; where there are several, each counts with the entropy of its probabilities.
        """
        if self.regions:
            probabilities = torch.sigmoid(logits)
            entropy = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
            return torch.cat([probabilities, entropy], 1) if self.is_split else probabilities
        if self.evidence is not None:
            found = opinion(logits, self.evidence)
            expected = _dirichlet_entropy(found) if self.passes == 1 else _entropy(found.probability)
            return torch.cat([found.probability, expected, found.uncertainty], 1)
        probabilities = torch.softmax(logits, 1)
        return torch.cat([probabilities, _entropy(probabilities)], 1) if self.is_split else probabilities


class WindowNetwork:
    """Asks the networks about windows.

    Args:
        networks: in eval mode, alike. plan: the passes.
        batch: windows a network sees at a time.
        precision: "bf16" computes convolutions in bfloat16.
    """

    def __init__(
        self, networks: Sequence[VolumeNetwork], plan: Sequence[Pass], *, batch: int, precision: Precision = "float32"
    ) -> None:
        first = networks[0]
        self.networks, self.plan, self.batch, self.precision = networks, plan, batch, precision
        self.answers = Answers(first.classes, first.regions, first.evidence, len(plan))
        self._device = device_of(first)

    def __call__(self, windows: NDArray[np.float32]) -> Iterator[Tensor]:
        """Answer windows [n, C, d, h, w] one by one: the means [channels, d, h, w] of all passes.

        Windows and mirrors share batches. With dropout windows go one by one, each with the pass's seed: the pass is
        one thinned network for the whole volume.

        Raises:
            CheckpointError: an answer is not finite.
        """
        seen = torch.from_numpy(windows).to(self._device)
        means: dict[int, Tensor] = {}
        counts = Counter[int]()
        for asked in self._batches(len(windows)):
            for job, logits in zip(asked, self._logits(seen, asked), strict=True):
                found = self.answers.of(logits[None])[0]
                counts[job.window] += 1
                if job.window in means:
                    found = means[job.window].add_((found - means[job.window]) / counts[job.window])
                means[job.window] = found
                if counts[job.window] == len(self.plan):
                    yield means.pop(job.window)

    def _batches(self, windows: int) -> Iterator[list[_Job]]:
        jobs = (_Job(how, window) for how in self.plan for window in range(windows))
        for (_, is_sampled), alike in groupby(jobs, lambda job: (job.how.network, job.how.sampling)):
            together, most = list(alike), 1 if is_sampled else self.batch
            yield from (together[start : start + most] for start in range(0, len(together), most))

    def _logits(self, seen: Tensor, jobs: Sequence[_Job]) -> Iterator[Tensor]:
        """Run one batch: logits [O, d, h, w] of each job, mirrored back."""
        how = jobs[0].how
        network = self.networks[how.network]
        mirrors = [[axis - network.dims for axis in job.how.axes] for job in jobs]  # of [C, d, h, w]
        image = torch.stack([_mirrored(seen[job.window], axes) for job, axes in zip(jobs, mirrors, strict=True)])
        image = image if network.dims == 3 else image[:, :, 0]
        sampling = sampling_from(network, how.seed) if how.sampling else nullcontext()
        with sampling, torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = network(image).logits
        if not bool(torch.isfinite(logits.sum(dtype=torch.float32))):
            raise CheckpointError("the network answers with values that are not finite: its weights are unusable")
        for each, axes in zip(logits if network.dims == 3 else logits[:, :, None], mirrors, strict=True):
            yield _mirrored(each.float(), axes)


class _Job(NamedTuple):
    how: Pass
    window: int


def require_fit(estimator: Estimator, networks: Sequence[VolumeNetwork], *, dims: int, channels: int) -> None:
    """Refuse networks that differ or do not fit a plan, and an estimator that they cannot carry out.

    Raises:
        ConfigError: the message says what does not fit.
    """
    kinds = [
        f"{one.dims}-D, {one.channels} channels, {one.classes} {'regions' if one.regions else 'classes'}, evidence "
        f"{one.evidence}"
        for one in networks
    ]
    require_alike(estimator, kinds)
    first = networks[0]
    if (first.dims, first.channels) != (dims, channels):
        raise ConfigError(
            f"a {first.dims}-D network of {first.channels} channels; the plan is for {dims}-D and {channels} channels"
        )
    require_able(estimator, first)
    for how in estimator.plan():
        if how.flip != "none" or any(axis >= dims for axis in how.axes):
            raise ConfigError(
                f"{estimator.name}: mirrors of a {dims}-D network are VolumeMirrors{tuple(range(dims))}; found {how}"
            )


def _mirrored(values: Tensor, axes: list[int]) -> Tensor:
    return values.flip(axes) if axes else values  # a flip along no axis copies as well


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(1, keepdim=True)


def _dirichlet_entropy(found: Opinion) -> Tensor:
    differences = torch.digamma(found.strength + 1) - torch.digamma(found.alpha + 1)
    return (found.probability * differences).sum(1, keepdim=True)
