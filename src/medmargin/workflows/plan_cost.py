"""What a plan would cost on this machine: memory by the model of `datasets.planning.memory`, time by a short benchmark.

A convolution with instance normalisation and leaky ReLU is timed for every stage of the planned network (its features,
its kernel, a crop of its maps); the multiply-adds of the stage, divided by the speed found, give its time. An estimate:
reading, augmentation and resampling are not in it. On a processor the benchmark counts the time it was given, not the
time that passed: the estimate is that of an otherwise idle machine, and the share left by other work is told beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil, prod
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn

from medmargin.datasets.planning import Configuration, Plan
from medmargin.workflows.device_memory import device_memory

_BENCHMARK_MULTIPLY_ADDS = 1e9  # of one timed forward pass at most: a fraction of a second on two cores
_REPEATS = 4
_SAMPLES = 2  # a single small sample would take torch's slow convolution (8 times slower), which no training sees
_STEP = 0.5  # of the sliding window, as a fraction of the patch
_BACKWARD = 2  # a backward pass costs two forward passes: gradients of the input, and of the weights
_CONVOLUTIONS: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMALISATIONS: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@dataclass(frozen=True)
class Cost:
    """Estimates for one configuration on this machine.

    Attributes:
        configuration: its name. device: "cpu" or the name of the graphics card. precision: "float32" or "mixed".
        threads: of the processor. processor_share: of their time that the benchmark got, 1 on an idle machine; None on
            a graphics card.
        memory: bytes that the device has; None where the system does not say.
        training_bytes: of one training step. step_seconds: time of it.
        prediction_bytes: of predicting the median image, all class scores held at once.
        windows: patches that cover the median image. prediction_seconds: of all of them, without mirroring.
    """

    configuration: str
    device: str
    precision: str
    threads: int
    processor_share: float | None
    memory: int | None
    training_bytes: int
    step_seconds: float
    prediction_bytes: int
    windows: int
    prediction_seconds: float

    @property
    def fits(self) -> bool:
        """Whether the device has the memory that training needs."""
        return self.memory is None or self.training_bytes <= self.memory

    def to_dict(self) -> dict[str, Any]:
        """Give plain types only."""
        return {**asdict(self), "fits": self.fits}


def measure_cost(plan: Plan) -> Cost:
    """Time the stages of the plan's chosen configuration on the first graphics card, else on the processor."""
    has_card = torch.cuda.is_available()
    device = torch.device("cuda" if has_card else "cpu")
    chosen = plan.configuration()
    wall, busy = perf_counter(), process_time()
    forward, training = _speeds(chosen, device)
    share = (process_time() - busy) / (perf_counter() - wall) / torch.get_num_threads()
    counts = chosen.network.multiply_adds(chosen.patch)
    windows = window_count(chosen.median_shape, chosen.patch) * (plan.slices if chosen.dims == 2 else 1)
    sample = sum((1 + _BACKWARD) * count / speed for count, speed in zip(counts, training, strict=True))
    precision = "mixed" if has_card else "float32"
    return Cost(
        configuration=chosen.name,
        device=torch.cuda.get_device_name(0) if has_card else "cpu",
        precision=precision,
        threads=torch.get_num_threads(),
        processor_share=None if has_card else min(share, 1.0),
        memory=device_memory(),
        training_bytes=chosen.training_bytes(precision),
        step_seconds=chosen.batch_size * sample,
        prediction_bytes=chosen.prediction_bytes(precision, slices=plan.slices),
        windows=windows,
        prediction_seconds=windows * sum(count / speed for count, speed in zip(counts, forward, strict=True)),
    )


def window_count(shape: Sequence[int], patch: Sequence[int]) -> int:
    """Count the patches that cover an image when neighbours overlap by half."""
    steps = (ceil(max(side - window, 0) / (window * _STEP)) + 1 for side, window in zip(shape, patch, strict=True))
    return prod(steps)


def _speeds(chosen: Configuration, device: torch.device) -> tuple[list[float], list[float]]:
    """Measure multiply-adds per second of every stage, forward alone and in training."""
    forward, training = [], []
    maps = chosen.network.maps(chosen.patch)
    for shape, features, kernel in zip(maps, chosen.features, chosen.kernels, strict=True):
        block = _block(features, kernel, chosen.dims).to(device)
        crop = _cropped(shape, _SAMPLES * prod(kernel) * features**2)
        count = _SAMPLES * prod(kernel) * features**2 * prod(crop)
        image = torch.randn(_SAMPLES, features, *crop, device=device, requires_grad=True)
        forward.append(count / _seconds(partial(_forward, block, image), device))
        training.append((1 + _BACKWARD) * count / _seconds(partial(_train, block, image), device))
    return forward, training


def _forward(block: nn.Module, image: Tensor) -> None:
    with torch.inference_mode(), torch.autocast(image.device.type, enabled=image.is_cuda):
        block(image)


def _train(block: nn.Module, image: Tensor) -> None:
    with torch.autocast(image.device.type, enabled=image.is_cuda):
        block(image).sum().backward()


def _block(features: int, kernel: Sequence[int], dims: int) -> nn.Module:
    convolution = _CONVOLUTIONS[dims](features, features, tuple(kernel), padding=tuple(side // 2 for side in kernel))
    return nn.Sequential(convolution, _NORMALISATIONS[dims](features, affine=True), nn.LeakyReLU(0.01, inplace=True))


def _cropped(shape: Sequence[int], per_voxel: int) -> tuple[int, ...]:
    """Shorten a map until a convolution on it stays within the benchmark; two voxels a side remain at least."""
    sides = list(shape)
    while prod(sides) * per_voxel > _BENCHMARK_MULTIPLY_ADDS and max(sides) > 2:
        longest = sides.index(max(sides))
        sides[longest] = max(sides[longest] // 2, 2)
    return tuple(sides)


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Time the fastest of a few runs, after one to warm up; on a processor, as if its threads had it for themselves."""
    has_card = device.type == "cuda"
    times = []
    for _ in range(1 + _REPEATS):
        start = perf_counter() if has_card else process_time()
        work()
        if has_card:
            torch.cuda.synchronize()
        times.append((perf_counter() - start) if has_card else (process_time() - start) / torch.get_num_threads())
    return min(times[1:])
