"""The shared training step: accumulation, averaging, the second pass, validation."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from medmargin.errors import ConfigError
from medmargin.learning import Optimisation
from medmargin.learning.learner import _averaged
from medmargin.learning.prompted import _dice, _prompted
from medmargin.runs import RunPaths, read_weights


def weights_of(folder) -> dict[str, torch.Tensor]:
    return read_weights(RunPaths(folder).weights)


def test_accumulated_parts_take_the_step_of_the_whole_batch(tiny, tmp_path):
    """Three unequal parts of four items; without batch norm, which would see the parts."""
    for accumulate in (1, 3):
        learner = tiny.learner(norm=False, dropout=0.0, accumulate=accumulate)
        tiny.run(tmp_path / str(accumulate), steps=5, network=learner, validate=False)
    whole, parts = weights_of(tmp_path / "1"), weights_of(tmp_path / "3")
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-3, atol=1e-5)


def test_a_radius_of_zero_is_the_plain_optimiser_bit_for_bit(tiny, tmp_path):
    """Against a bare AdamW loop over the same batches."""
    learner = tiny.learner(average_decay=None, dropout=0.0)
    bare = tiny.learner(average_decay=None, dropout=0.0)
    tiny.run(tmp_path, steps=4, network=learner, validate=False)
    optimiser, schedule, stream = bare.configure_optimizers(), bare.optimisation.schedule, tiny.stream()
    for step in range(4):
        for group in optimiser.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * schedule(step, total_steps=4)
        optimiser.zero_grad()
        bare.objective(stream.collate([stream[step, position] for position in range(4)])).total.backward()
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimiser.step()
    kept = weights_of(tmp_path)
    assert all(torch.equal(kept[name], value) for name, value in bare.network.state_dict().items())


def test_the_second_pass_changes_the_step_and_counts_a_batch_once(tiny, tmp_path):
    passes = {}
    for rho in (0.0, 0.05):
        learner = tiny.learner(rho=rho)
        calls = []
        learner.network.register_forward_pre_hook(lambda module, inputs, calls=calls: calls.append(module.training))
        tiny.run(tmp_path / str(rho), steps=3, network=learner, validate=False)
        passes[rho] = len(calls)
        assert learner.network.norm.num_batches_tracked == 3
    assert passes == {0.0: 3, 0.05: 6}
    flat, plain = weights_of(tmp_path / "0.05"), weights_of(tmp_path / "0.0")
    assert not torch.equal(flat["last.weight"], plain["last.weight"])


def test_learned_loss_weights_move_and_never_decay(tiny, tmp_path):
    learner = tiny.learner()
    tiny.run(tmp_path, steps=6, network=learner, validate=False)
    uncertainties = learner.loss.weighting.uncertainty
    assert (uncertainties != 1).all()
    groups = {group["name"]: group for group in learner.configure_optimizers().param_groups}
    assert groups["loss"]["weight_decay"] == 0
    assert groups["loss"]["lr"] == 100 * groups["decay"]["lr"]


def test_the_moving_average_copies_then_averages_then_decays():
    """Decay min(1 - 1 / (n + 1), 0.75): the mean of the first four, then an exponential average. Counters follow."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    averaged = _averaged(network, 0.75)
    values, expected = [1.0, 2.0, 6.0, 7.0, 100.0], [1.0, 1.5, 3.0, 4.0, 28.0]
    for count, (value, mean) in enumerate(zip(values, expected, strict=True), start=1):
        with torch.no_grad():
            network[0].weight.fill_(value)
            network[1].num_batches_tracked.fill_(count)
        averaged.update_parameters(network)
        assert averaged.module[0].weight.item() == pytest.approx(mean)
        assert averaged.module[1].num_batches_tracked == count
    assert not any(weight.requires_grad for weight in averaged.parameters())


@pytest.mark.parametrize(
    "wrong",
    [{"lr": 0.0}, {"lr": 1.0, "accumulate": 0}, {"lr": 1.0, "clip_norm": 0.0}, {"lr": 1.0, "average_decay": 1.0}],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Optimisation(**wrong)


def test_low_resolution_logits_are_raised_to_the_targets(tiny):
    stream = tiny.stream()
    batch = stream.collate([stream[0, position] for position in range(2)])
    network = tiny.TinyNetwork().eval()
    raw = network(batch.image, boxes=batch.boxes)
    raised = _prompted(network, batch)
    assert raw.logits.shape[-1] == tiny.SIZE // 2
    assert raised.logits.shape == batch.target.shape
    # half-pixel centres: two fine pixels lie symmetrically about each coarse one
    assert raised.logits[..., 1:3, 1:3].mean(dim=(2, 3)).allclose(
        (raw.logits[..., 0, 0] + raw.logits[..., 0, 1] + raw.logits[..., 1, 0] + raw.logits[..., 1, 1]) / 4, atol=1e-5
    )
    assert torch.equal(raised.quality, raw.quality)


def test_dice_of_known_masks():
    mask, truth = torch.zeros(2, 1, 2, 4, dtype=torch.bool), torch.zeros(2, 1, 2, 4, dtype=torch.bool)
    mask[0, 0, 0], truth[0, 0, :, :2] = True, True  # 4 and 4 pixels, 2 in common
    truth[1] = True
    assert _dice(mask, truth).tolist() == [0.5, 0.0]


def test_float16_gradients_are_clipped_at_their_true_norm(tiny):
    """The scale of float16 training multiplies the gradient; the limit must follow, and the reported norm must not."""
    learner = tiny.learner()
    scaled = copy.deepcopy(learner)
    optimisers = []
    for one, scale in ((learner, 1.0), (scaled, 1024.0)):
        optimisers.append(one.configure_optimizers())
        for weight in one.network.parameters():
            weight.grad = torch.full_like(weight, 10 * scale)
        scaler = SimpleNamespace(get_scale=lambda scale=scale: scale)
        one._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    norms = [one._clipped(optimiser) for one, optimiser in zip((learner, scaled), optimisers, strict=True)]
    assert norms[0] == pytest.approx(norms[1].item(), rel=1e-5)
    for weight, scaled_weight in zip(learner.network.parameters(), scaled.network.parameters(), strict=True):
        torch.testing.assert_close(weight.grad * 1024, scaled_weight.grad)
