"""`VolumePredictor`: a volume in, all structures with their uncertainty out, by windows that slide over it.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z): the image is brought to the spacing the network was trained at,
windows with Gaussian weights are averaged, and the answer returns to the image's own grid.

The averages run through as a stream of slices: finished ones are resampled, rescaled and drawn at once, so that no
array of classes times volume is ever held unless probabilities are asked for.

Deviations: probabilities are averaged, not logits, over windows and passes alike. They stay probabilities under any
mean and under linear resampling, and so do the entropies beside them, by which the uncertainty gets its parts; the mean
of logits has neither property. Resampling to the image's grid is linear (published: the same).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medmargin.datasets.planning import Configuration, Plan
from medmargin.errors import ConfigError, PromptError
from medmargin.imaging import Volume
from medmargin.inference.budget import memory_in_use
from medmargin.inference.class_canvas import ClassCanvas, RegionCanvas
from medmargin.inference.margins import thresholds_reached
from medmargin.inference.network import predicting
from medmargin.inference.postprocessing import Rule, apply_rules
from medmargin.inference.recalibration import concluded, looks_at_image
from medmargin.inference.results import label_values, segmentation_of
from medmargin.inference.segmentation import NO_PROMPTS, PROMPTS_FROM_USER, Segmentation
from medmargin.inference.strips import Strip, cut_strips
from medmargin.inference.trust import Trust
from medmargin.inference.volume_budget import Shape, VolumeBudget, VolumeGeometry, expected_geometry, plan_volume
from medmargin.inference.volume_maps import VolumeRescaling, slice_maps
from medmargin.inference.window_averages import averages, cut_window
from medmargin.inference.window_network import Answers, Precision, VolumeNetwork, WindowNetwork, require_fit
from medmargin.inference.windows import window_axes
from medmargin.prompts.types import Prompt
from medmargin.transforms.preparation import Preparation
from medmargin.transforms.regridding import to_slices
from medmargin.uncertainty.calibration import Calibration
from medmargin.uncertainty.estimators import Estimator

Progress = Callable[[int, int], None]
_EMBEDDED_WINDOWS = 8  # spread evenly over the volume


class VolumePredictor:
    """Predicts with networks that were trained on patches of a plan, 3-D or slice by slice.

    Args:
        networks: one network, or the members of an ensemble, alike; see `VolumeNetwork`.
        structures: names of the classes 1..K-1, or of the regions in the order in which they are written.
        plan, configuration: how images are prepared, and the windows the network was trained on.
        uncertainty: how to ask.
        regions: of a network whose structures may lie in each other: structure -> the values 1, 2, ... of the
            structures that lie in it, its own among them; see `Task.members`.
        rules: corrections of the label map.
        level: of the volume intervals, in (0, 1).
        memory: bytes the process may hold; None aims at 4 GiB without refusing anything.
        threads: threads of the networks while they predict; None leaves torch's setting.
        step: between windows, in (0, 1], as a share of their sides.
        precision: "bf16" computes convolutions in bfloat16.
        mirror_axes: spatial axes along which the networks have seen mirrored images in training.

    Attributes:
        calibration, trust: what held-out patients taught, to be set afterwards; None: not calibrated.
        normalise: None, for whoever treats all predictors alike: the plan says how intensities are normalised.

    Raises:
        ConfigError: a value out of range, or networks, structures, plan and estimator that do not fit together.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module] | nn.Module,
        *,
        structures: Sequence[str],
        plan: Plan,
        configuration: Configuration,
        uncertainty: Estimator,
        regions: Mapping[str, Sequence[int]] | None = None,
        rules: Sequence[Rule] = (),
        level: float = 0.9,
        memory: int | None = None,
        threads: int | None = None,
        step: float = 0.5,
        precision: Precision = "float32",
        mirror_axes: tuple[int, ...] = (),
    ) -> None:
        if not 0 < level < 1 or not 0 < step <= 1 or (threads is not None and threads < 1):
            raise ConfigError(
                f"level {level}, step {step}, threads {threads}: expected a level between 0 and 1, a step of at most 1 "
                "window, and at least one thread"
            )
        if precision not in ("float32", "bf16"):
            raise ConfigError(f"precision '{precision}': expected float32 or bf16")
        self.networks: tuple[nn.Module, ...] = (networks,) if isinstance(networks, nn.Module) else tuple(networks)
        self.structures = tuple(structures)
        self.plan, self.configuration, self.uncertainty = plan, configuration, uncertainty
        self.regions = None if not regions else {name: tuple(values) for name, values in regions.items()}
        self.rules = tuple(rules)
        self.level, self.memory, self.threads = level, memory, threads
        self.step, self.precision, self.mirror_axes = step, precision, mirror_axes
        self.normalise = None
        self.calibration: Calibration | None = None
        self.trust: Trust | None = None
        self.checked()

    @property
    def forward_passes(self) -> int:
        """Answers averaged in every window."""
        return self.uncertainty.members

    def predict(
        self,
        volume: Volume,
        prompts: Sequence[Prompt] = (),
        *,
        labels: Mapping[str, int] | None = None,
        prompts_source: str = PROMPTS_FROM_USER,
        probabilities: bool = True,
        later_overwrites: bool | None = None,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Segment the structures of an image.

        The volume intervals come from the mean answer, as from a single member: single windows and passes overlap in
        parts of the image only, and have no volume of their own.

        Args:
            volume: with the channels of the plan.
            prompts: none; prompts_source: where none come from, for callers that treat all predictors alike.
            labels: structure name -> label value, for all structures; by default 1, 2, ...
            probabilities: keep a probability map per structure, before any rules.
            later_overwrites: None or False where classes exclude each other; of regions, later ones always overwrite.
            progress: called with (done, all) windows.

        Raises:
            ConfigError: a structure without a label value, or `later_overwrites`.
            PromptError: there are prompts.
            DataError: an image without signal, with other channels, or a picture for a 3-D network.
            BudgetError: not enough memory; raised before the work starts.
        """
        if prompts:
            raise PromptError("this system finds structures by itself: leave the prompts out")
        if later_overwrites and self.regions is None:
            raise ConfigError("later_overwrites: the classes of this network exclude each other; leave it out")
        networks = self.checked()
        values = label_values(self.structures, labels)
        answers = _answers(networks[0], self.uncertainty)
        geometry = expected_geometry(volume, self.plan, self.configuration, self._patch)
        in_use = memory_in_use()
        self._budget(volume, geometry, answers, in_use, probabilities)
        preparation = Preparation(volume, self.plan, self.configuration)
        geometry = replace(geometry, image=preparation.shape, grid=preparation.voxels.shape[1:])
        budget = self._budget(volume, geometry, answers, in_use, probabilities)
        canvas = self._canvas(preparation.full_shape, answers, probabilities)
        with predicting(self.networks, self.threads):
            network = WindowNetwork(networks, self.uncertainty.plan(), batch=budget.batch, precision=self.precision)
            self._draw(canvas, preparation, network, geometry, budget, progress)
            needs_embedding = self.trust is not None and self.trust.needs_embedding
            embedding = _embedding(self.networks[0], preparation.voxels, geometry, self.step, needs_embedding)
        if self.rules:
            self._apply_rules(canvas, preparation.box)
        answer = segmentation_of(
            canvas,
            stack=preparation,
            image=volume,
            structures=values,
            level=self.level,
            prompts_source=NO_PROMPTS,
            uncertainty_source=self.uncertainty.name,
            forward_passes=self.forward_passes,
            warnings=tuple(preparation.warnings),
            is_split=answers.is_split,
            maps=canvas.further,
            reached=canvas.reached,
            calibrated=self.calibration is not None,
            contained=self.contained,
        )
        return concluded(answer, self.calibration, self.trust, embedding)

    def checked(self) -> list[VolumeNetwork]:
        """Return the networks if they, the structures, the plan and the estimator fit together.

        All of them may be set after construction; `predict` checks again.

        Raises:
            ConfigError: they do not.
        """
        networks = [cast(VolumeNetwork, network) for network in self.networks]
        configuration, names = self.configuration, self.structures
        require_fit(self.uncertainty, networks, dims=configuration.dims, channels=configuration.channels)
        answers = _answers(networks[0], self.uncertainty)
        if answers.structures != len(names) or len(set(names)) < len(names):
            raise ConfigError(
                f"structures {', '.join(names) or 'none'}: the network answers {answers.structures} of them; expected "
                "as many different names (the background has none)"
            )
        if answers.regions != (self.regions is not None) or (self.regions and set(self.regions) != set(names)):
            raise ConfigError(
                f"regions {', '.join(self.regions or ()) or 'none'}: expected the label values of each of "
                f"{', '.join(names)} for a network with sigmoids, and none for one with a softmax or evidence"
            )
        strange = [rule.structure for rule in self.rules if rule.structure not in names]
        if strange:
            raise ConfigError(f"rules: no structure is called '{strange[0]}'; expected one of {', '.join(names)}")
        return networks

    @property
    def contained(self) -> tuple[tuple[int, ...], ...]:
        """Index of each structure -> indices of the structures that lie in it, itself included."""
        if self.regions is None:
            return tuple((index,) for index in range(len(self.structures)))
        inside = [self.regions[name] for name in self.structures]
        return tuple(tuple(index for index in range(len(inside)) if index + 1 in values) for values in inside)

    @property
    def _patch(self) -> Shape:
        depth, height, width = (1, *self.configuration.patch)[-3:]
        return depth, height, width

    def _budget(
        self, volume: Volume, geometry: VolumeGeometry, answers: Answers, in_use: int, probabilities: bool
    ) -> VolumeBudget:
        return plan_volume(
            geometry,
            answers,
            self.configuration,
            in_use=in_use,
            limit=self.memory,
            name=str(volume.source or "the image"),
            step=self.step,
            keep_probabilities=probabilities,
            has_rules=bool(self.rules),
            may_cut=not looks_at_image(self.calibration),  # its temperature looks at neighbours
        )

    def _canvas(self, shape: Shape, answers: Answers, probabilities: bool) -> ClassCanvas:
        options: dict[str, Any] = {
            "structures": len(self.structures),
            "members": 1,
            "is_split": answers.is_split,
            "keeps_chosen": bool(self.rules),
            "keep_probabilities": probabilities,
            "reached": thresholds_reached(self.calibration, self.structures, shape),
        }
        if self.regions is not None:
            return RegionCanvas(shape, contained=self.contained, **options)
        return ClassCanvas(shape, **options)

    def _draw(
        self,
        canvas: ClassCanvas,
        preparation: Preparation,
        network: WindowNetwork,
        geometry: VolumeGeometry,
        budget: VolumeBudget,
        progress: Progress | None,
    ) -> None:
        """Predict strip after strip, and draw each finished slice of it at its place in the image."""
        calibration, is_regions = self.calibration, network.answers.regions
        rescaling = None if calibration is None else VolumeRescaling(calibration, regions=is_regions)
        layer, row, _ = (side.start or 0 for side in preparation.box)
        strips = cut_strips(geometry.grid[1], geometry.image[1], budget.strips)
        stream = _Stream(preparation, network, geometry, budget, self.step, progress)
        for strip in strips:
            for index, values in stream.slices(strip, strips, with_picture=looks_at_image(calibration)):
                maps = slice_maps(values, network.answers)
                if rescaling is not None:
                    picture = values[network.answers.channels :]
                    maps = rescaling.maps(maps, picture if len(picture) else None)
                rows = slice(row + strip.target.start, row + strip.target.stop)
                canvas.sample(0, maps.probabilities)
                canvas.draw((layer + index, rows, preparation.box[2]), maps)

    def _apply_rules(self, canvas: ClassCanvas, box: tuple[slice, ...]) -> None:
        if canvas.chosen is not None:
            indices = {name: index for index, name in enumerate(self.structures)}
            apply_rules(canvas.labels[box], canvas.chosen[box], self.rules, indices, self.contained)
            canvas.recount()


class _Stream:
    """The finished slices of one case.

    Args:
        progress: told the windows of all strips.
    """

    def __init__(
        self,
        preparation: Preparation,
        network: WindowNetwork,
        geometry: VolumeGeometry,
        budget: VolumeBudget,
        step: float,
        progress: Progress | None,
    ) -> None:
        self._voxels, self._network, self._geometry = preparation.voxels, network, geometry
        self._batch, self._through, self._progress = budget.batch, preparation.through, progress
        self._axes = window_axes(geometry.grid, geometry.patch, step)
        self._done = 0

    def slices(
        self, strip: Strip, strips: Sequence[Strip], *, with_picture: bool
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the slices of the image in order, rows of one strip, [A, rows, W]; pictures [C, rows, W] behind A."""
        total = sum(self._windows(each) for each in strips)

        def done(windows: int) -> None:
            self._done += windows
            if self._progress is not None:
                self._progress(self._done, total)

        means = averages(self._voxels, self._network, self._axes, batch=self._batch, rows=strip.source, done=done)
        if with_picture:
            means = ((index, np.concatenate([values, self._voxels[:, index, strip.source]])) for index, values in means)
        (layers, _, columns), (depth, height, width) = self._geometry.grid, self._geometry.image
        high = strip.source.stop - strip.source.start
        if len(strips) == 1:
            yield from to_slices(means, self._geometry.grid, (depth, height, width), through=self._through)
            return
        target = (depth, high, width)  # rows need neighbours from beyond the strip and are interpolated after columns
        for index, values in to_slices(means, (layers, high, columns), target, through=self._through):
            yield index, strip.interpolated(values)

    def _windows(self, strip: Strip) -> int:
        depth, height, width = self._axes
        return len(depth.starts) * len(height.touching(strip.source.start, strip.source.stop)) * len(width.starts)


def _answers(network: VolumeNetwork, estimator: Estimator) -> Answers:
    return Answers(network.classes, network.regions, network.evidence, estimator.members)


def _embedding(
    network: nn.Module, voxels: NDArray[np.float32], geometry: VolumeGeometry, step: float, is_needed: bool
) -> NDArray[np.float64] | None:
    """Average the deepest map of the encoder over space and at most 8 windows: [D].

    None where nobody asks for it, or the network has no `encoder` that gives its maps, finest first.
    """
    encoder = getattr(network, "encoder", None)
    if encoder is None or not is_needed:
        return None
    corners = list(product(*(axis.starts for axis in window_axes(geometry.grid, geometry.patch, step))))
    every = -(-len(corners) // _EMBEDDED_WINDOWS)
    device = next(network.parameters()).device
    found = []
    for corner in corners[every // 2 :: every]:
        window = torch.from_numpy(cut_window(voxels, corner, geometry.patch))[None].to(device)
        deepest = encoder(window if network.dims == 3 else window[:, :, 0])[-1]  # [1, D, *grid]
        found.append(deepest[0].flatten(1).mean(1).float().cpu().numpy().astype(np.float64))
    return np.mean(found, axis=0)
