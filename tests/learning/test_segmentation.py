"""The learner of automatic networks: what the loss is told, what is validated, and that a cut run ends the same."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.learning import (
    Budget,
    FixedItems,
    LabelledSlices,
    Optimisation,
    SegmentationBatch,
    SegmentationLearner,
    fit,
)
from medmargin.learning.learner import _averaged
from medmargin.learning.segmentation import class_overlaps, pooled_dice, region_overlaps
from medmargin.losses.weighting import LossReport
from medmargin.networks.evidence import opinion
from medmargin.networks.prediction import Prediction
from medmargin.optim.schedules import polynomial_with_warmup
from medmargin.runs import RunPaths, read_weights
from medmargin.transforms import Augmentation

SIZE, CLASSES = 16, 3


class Interruption(BaseException):
    """Not an error anything may catch."""


@dataclass(frozen=True)
class Stripes:
    """A source of two bright stripes on noise."""

    objects: int = 40

    def draw_slice(self, rng, *, empty_share, planes):
        labels = np.zeros((20, 24), np.uint8)
        if rng.random() >= empty_share:
            row = int(rng.integers(0, 10))
            labels[row : row + 4], labels[row + 6 : row + 9] = 1, 2
        return (labels + rng.normal(0, 0.3, labels.shape)).astype(np.float32), labels


class TinySegmenter(nn.Module):
    """Logits at half the input's size; batch statistics, dropout, an optional box, and a threshold that starts as NaN.

    Attributes:
        seen: shape of everything that was observed.
    """

    def __init__(self, evidence: str | None = "softplus") -> None:
        super().__init__()
        self.evidence = evidence
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Conv2d(8, CLASSES, 3, padding=1)
        self.box = nn.Linear(4, 8)
        if evidence is not None:
            self.register_buffer("flag_threshold", torch.tensor(float("nan")))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor, *, boxes: Tensor | None = None) -> Prediction:
        features = self.norm(self.first(image))
        if boxes is not None:
            features = features + self.box(boxes / SIZE)[..., None, None]
        return Prediction(self.last(self.dropout(F.gelu(features))))

    def observe(self, vacuity: Tensor) -> None:
        assert not vacuity.requires_grad
        self.seen.append(tuple(vacuity.shape))
        quantile = vacuity.quantile(0.95)
        before = torch.where(self.flag_threshold.isnan(), quantile, self.flag_threshold)
        self.flag_threshold.copy_(before + 0.1 * (quantile - before))


class ProgressLoss(nn.Module):
    """Cross-entropy whose weight grows with the progress, which it writes down."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    def forward(self, prediction: Prediction, labels: Tensor, progress: float) -> LossReport:
        self.told.append(progress)
        logits = F.interpolate(prediction.logits, size=labels.shape[-2:], mode="bilinear")
        ce = F.cross_entropy(logits, labels)
        return LossReport(ce * (1 + progress), {"ce": ce.detach()}, {"ce": torch.tensor(1 + progress)})


def learner(*, seed=0, lr=3e-3, average_decay=0.9, evidence="softplus", **options) -> SegmentationLearner:
    torch.manual_seed(seed)
    schedule = partial(polynomial_with_warmup, warmup_steps=2)
    ways = Optimisation(lr=lr, clip_norm=5.0, average_decay=average_decay, schedule=schedule, **options)
    return SegmentationLearner(TinySegmenter(evidence), ProgressLoss(), ways)


def run(folder, network: SegmentationLearner, *, steps=8, **options):
    stream = LabelledSlices(Stripes(), SIZE, 5, Augmentation(gamma=0.3, noise=0.05), prompted_share=0.3, box_jitter=2)
    defaults = {
        "budget": Budget(steps=steps), "batch_size": 4, "seed": 7, "accelerator": "cpu", "validate_every": 4,
        "log_every": 1, "progress": False,
    }  # fmt: skip
    return fit(network, stream, FixedItems(stream.undisturbed(Stripes()), 6), folder=folder, **{**defaults, **options})


def outcome_of(folder) -> tuple[bytes, list]:
    paths = RunPaths(folder)
    return paths.weights.read_bytes(), [json.loads(line) for line in paths.metrics.read_text().splitlines()]


@pytest.mark.parametrize(("rho", "accumulate"), [(0.0, 1), (0.05, 2)])
def test_resuming_after_any_step_repeats_the_uninterrupted_run(tmp_path, rho, accumulate):
    """The loss depends on the progress, and so would a threshold that was observed twice or forgotten."""
    steps = 8
    build = partial(learner, rho=rho, accumulate=accumulate)
    run(tmp_path / "whole", build(), steps=steps)
    for step in range(1, steps):
        folder, cut = tmp_path / f"cut{step}", build()

        def fail(module, inputs, cut=cut, step=step):
            if cut.trainer.training and cut.trainer.global_step == step:
                raise Interruption

        cut.network.register_forward_pre_hook(fail)
        with pytest.raises(Interruption):
            run(folder, cut, steps=steps, checkpoint_steps=1)
        torch.manual_seed(step)
        assert run(folder, build(seed=99), steps=steps, resume=True).steps == steps
        assert outcome_of(folder) == outcome_of(tmp_path / "whole")
    weights = read_weights(RunPaths(tmp_path / "whole").weights)
    assert 0 < float(weights["flag_threshold"]) < 1


@pytest.mark.parametrize(("rho", "accumulate"), [(0.0, 1), (0.05, 1), (0.05, 2)])
def test_the_loss_is_told_the_progress_in_both_passes_and_the_vacuity_is_observed_in_the_first(
    tmp_path, rho, accumulate
):
    network = learner(rho=rho, accumulate=accumulate)
    run(tmp_path, network, steps=4)
    passes = accumulate * (2 if rho else 1)
    assert network.loss.told == [step / 4 for step in range(4) for _ in range(passes)]
    assert len(network.network.seen) == 4 * accumulate
    assert all(0 < pixels <= 4 // accumulate * SIZE * SIZE for (pixels,) in network.network.seen)


def test_before_training_the_progress_is_zero():
    assert learner().progress == 0.0


def test_with_a_budget_in_minutes_the_progress_rises_to_the_end_and_a_resumed_run_goes_on_from_it(tmp_path):
    cut, pressed = learner(), []

    def press(module, inputs):
        if cut.training and cut.progress > 0.3 and not pressed:  # a second signal would end at once
            pressed.append(cut.progress)
            os.kill(os.getpid(), signal.SIGINT)

    cut.network.register_forward_pre_hook(press)
    budget = Budget(minutes=0.04)
    assert run(tmp_path, cut, budget=budget, validate_every=1000).stopped_by == "signal"
    resumed = learner(seed=1)
    assert run(tmp_path, resumed, budget=budget, validate_every=1000, resume=True).stopped_by == "minutes"
    told = cut.loss.told + resumed.loss.told
    assert told == sorted(told)
    assert 0 < cut.loss.told[-1] <= resumed.loss.told[0] < cut.loss.told[-1] + 0.1
    assert 0.9 < told[-1] <= 1


def test_what_is_observed_is_the_vacuity_of_the_raised_logits():
    network = learner()
    shown = []
    network.network.observe = shown.append
    network.network.dropout.p = 0.0
    batch = SegmentationBatch(torch.rand(2, 3, SIZE, SIZE), torch.randint(0, CLASSES, (2, SIZE, SIZE)))
    network.objective(batch)
    logits = F.interpolate(network.network(batch.image).logits, size=(SIZE, SIZE), mode="bilinear")
    evidence = F.softplus(logits)
    vacuity = CLASSES / (evidence + 1).sum(dim=1)
    torch.testing.assert_close(shown[0], vacuity.flatten())
    network.objective(batch._replace(sizes=torch.tensor([[SIZE, 3], [5, SIZE]])))
    torch.testing.assert_close(shown[1], torch.cat([vacuity[0, :, :3].flatten(), vacuity[1, :5].flatten()]))
    network.eval()
    network.objective(batch)
    assert len(shown) == 2


def test_the_average_of_a_statistic_begins_with_its_first_finite_value():
    network = TinySegmenter()
    averaged = _averaged(network, 0.75)
    for value, mean in [(math.nan, math.nan), (math.nan, math.nan), (0.4, 0.4), (0.8, 0.4 + 0.25 * 0.4)]:
        network.flag_threshold.fill_(value)
        averaged.update_parameters(network)
        assert averaged.module.flag_threshold.item() == pytest.approx(mean, nan_ok=True)


def test_low_rank_factors_learn_at_their_own_rate():
    class Adapted(TinySegmenter):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Module()
            for name in ("a_q", "b_q", "a_v", "b_v", "a_queue"):
                self.qkv.register_parameter(name, nn.Parameter(torch.zeros(2, 2)))

    def rates(factor: float) -> dict[str, float]:
        network = Adapted()
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        ways = Optimisation(lr=1e-3, adapter_lr_factor=factor)
        groups = SegmentationLearner(network, ProgressLoss(), ways).configure_optimizers().param_groups
        return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}

    fast = {name for name, rate in rates(5.0).items() if rate == pytest.approx(5e-3)}
    assert fast == {"qkv.a_q", "qkv.b_q", "qkv.a_v", "qkv.b_v"}
    assert set(rates(1.0).values()) == {1e-3}
    with pytest.raises(ConfigError, match="adapter_lr_factor is 0"):
        Optimisation(lr=1e-3, adapter_lr_factor=0)


def test_a_softmax_network_has_no_vacuity_and_trains_all_the_same(tmp_path):
    network = learner(evidence=None)
    assert run(tmp_path, network, steps=3).steps == 3
    assert network.network.seen == []


def test_boxes_reach_the_network_in_steps_that_have_them(tmp_path):
    network = learner(average_decay=None)
    before = network.network.box.weight.clone()
    given = []
    network.network.register_forward_pre_hook(
        lambda module, inputs, keywords: given.append((module.training, keywords.get("boxes") is not None)),
        with_kwargs=True,
    )
    run(tmp_path, network, steps=12)
    assert {(True, True), (True, False), (False, False)} == set(given)
    assert not torch.equal(network.network.box.weight, before)


def test_dice_of_all_slices_together_counts_one_class_after_the_other():
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(0, 5, (6, 7, 3), generator=generator)
    found = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, truth, truth.flip(1))
    counts = class_overlaps(found, truth, classes=6)  # class 5 is nowhere and does not count
    dice = []
    for value in range(1, 5):
        a, b = (found == value).numpy(), (truth == value).numpy()
        dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert float(pooled_dice(counts)) == pytest.approx(np.mean(dice), rel=1e-6)
    is_right = (found == truth) & (truth > 0)
    assert int(counts[:, 0].sum()) == int(is_right.sum())
    assert int(counts[:, 2].sum()) == int((truth > 0).sum())


def test_without_any_structure_dice_is_one_and_a_false_one_gives_zero():
    nothing, something = torch.zeros(2, 4, 4, dtype=torch.long), torch.zeros(2, 4, 4, dtype=torch.long)
    something[0, 0] = 2
    assert float(pooled_dice(class_overlaps(nothing, nothing, classes=3))) == 1
    assert float(pooled_dice(class_overlaps(something, nothing, classes=3))) == 0


def test_pixels_that_do_not_count_are_left_out_and_regions_may_overlap():
    truth = torch.tensor([[[1, 2, -1, 0]]])
    found = torch.tensor([[[1, 1, 2, 0]]])
    assert class_overlaps(found, truth, classes=3).tolist() == [[1, 2, 1], [0, 0, 1]]
    whole_and_core = torch.tensor([[[[True, True, True, False]], [[True, True, False, False]]]])
    assert region_overlaps(whole_and_core, truth, ((1, 2), (2,))).tolist() == [[2, 2, 2], [1, 2, 1]]


@pytest.mark.parametrize("kind", [None, "softplus", "relu"])
def test_the_validation_score_pools_the_slices_of_all_batches(tmp_path, kind):
    """Seven slices in batches of four and three, against the same by hand with the weights that are kept."""
    network = learner(evidence=kind)
    stream = LabelledSlices(Stripes(), SIZE, 5)
    items = FixedItems(stream.undisturbed(Stripes()), 7)
    options = {"budget": Budget(steps=3), "batch_size": 4, "seed": 7, "accelerator": "cpu", "progress": False}
    outcome = fit(network, stream, items, folder=tmp_path, **options)
    kept = TinySegmenter(kind).eval()
    kept.load_state_dict(read_weights(RunPaths(tmp_path).weights))
    counts = torch.zeros(CLASSES - 1, 3, dtype=torch.long)
    for index in range(7):
        item = stream.collate([items[index]])
        with torch.no_grad():
            logits = F.interpolate(kept(item.image).logits, size=(SIZE, SIZE), mode="bilinear")
        alpha = logits if kind is None else opinion(logits, kind).alpha
        counts += class_overlaps(alpha.argmax(dim=1), item.labels, classes=CLASSES)
    assert outcome.best["val/dice"] == pytest.approx(float(pooled_dice(counts)), rel=1e-5)
    assert not math.isnan(outcome.best["val/dice"])


def test_it_learns(tmp_path):
    outcome = run(tmp_path, learner(lr=0.03), steps=200, validate_every=100)
    assert outcome.best["val/dice"] > 0.7
