"""SharpMin over two processes: the gradients of both passes are synchronised, so that all processes stay equal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from medmargin.optim.sharp_min import SharpMin

WORKER = """
import os
import sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from medmargin.optim.sharp_min import SharpMin

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
problem = torch.load(f"{folder}/problem.pt", weights_only=True)
network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
network.load_state_dict(problem["weights"])
parallel = DistributedDataParallel(network)
sharp = SharpMin(torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9), rho=0.5)
for x, y in zip(problem["x"], problem["y"]):
    sharp.step(lambda: (parallel(x[rank::2]) - y[rank::2]).square().mean().backward())
torch.save(network.state_dict(), f"{folder}/weights{rank}.pt")
distributed.barrier()
os._exit(0)  # the threads of gloo sometimes abort an orderly exit, after the work is done
"""


def _problem() -> dict[str, Tensor | dict[str, Tensor]]:
    torch.manual_seed(0)
    weights = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)).state_dict()
    return {"weights": weights, "x": torch.randn(4, 8, 6), "y": torch.randn(4, 8, 1)}


def test_two_processes_equal_one_at_the_same_global_batch(tmp_path: Path) -> None:
    problem = _problem()
    torch.save(problem, tmp_path / "problem.pt")
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    workers = [subprocess.Popen([sys.executable, tmp_path / "worker.py", str(rank), tmp_path]) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    both = [torch.load(tmp_path / f"weights{rank}.pt", weights_only=True) for rank in range(2)]

    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    network.load_state_dict(problem["weights"])
    sharp = SharpMin(torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9), rho=0.5)
    for x, y in zip(problem["x"], problem["y"], strict=True):
        sharp.step(lambda x=x, y=y: (network(x) - y).square().mean().backward())
    for name, value in network.state_dict().items():
        assert torch.equal(both[0][name], both[1][name])
        torch.testing.assert_close(both[0][name], value, rtol=1e-5, atol=1e-6)
