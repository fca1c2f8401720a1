"""The memory model against a training that runs, and its refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medmargin.datasets.planning import UNetShape, require_memory
from medmargin.datasets.planning.memory import prediction_bytes, samples_that_fit, training_bytes
from medmargin.errors import BudgetError

_NETWORK = UNetShape(((1, 1, 1),) + ((2, 2, 2),) * 3, ((3, 3, 3),) * 4, (16, 32, 64, 128), 1, 3)
_TRAINING = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_unet import _PlainUNet
from test_memory import _NETWORK
torch.set_num_threads(1)
network = _PlainUNet(_NETWORK)
optimiser = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99)
sum(answer.square().mean() for answer in network(torch.randn(2, 1, 40, 56, 40))).backward()
optimiser.step()
# not ru_maxrss, which a child takes over from the process that forked it
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc, as on Linux")
def test_the_estimate_of_a_training_holds():
    answer = subprocess.run(
        [sys.executable, "-c", _TRAINING, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    estimate = training_bytes(_NETWORK, (40, 56, 40), 2, "float32")
    assert 0.7 < int(answer.stdout) / estimate < 1.3


def test_as_many_samples_fit_as_the_estimate_says():
    patch, memory = (64, 64, 64), 2 * 2**30
    fitting = samples_that_fit(_NETWORK, patch, memory, "float32")
    assert training_bytes(_NETWORK, patch, fitting, "float32") <= memory
    assert training_bytes(_NETWORK, patch, fitting + 1, "float32") > memory
    assert samples_that_fit(_NETWORK, patch, 1, "float32") == 0


def test_prediction_takes_less_than_training():
    patch = (64, 64, 64)
    assert prediction_bytes(_NETWORK, patch, 64**3, "float32") < training_bytes(_NETWORK, patch, 2, "float32")


def test_too_much_is_refused_with_the_estimate():
    with pytest.raises(BudgetError, match=r"the training needs about 3\.00 GB, more than the 2\.00 GB.*Shrink it"):
        require_memory(3 * 2**30, 2 * 2**30, what="the training", cure="Shrink it.")
    require_memory(2 * 2**30, 2 * 2**30, what="the training", cure="")
