"""`AutomaticPredictor`: an image in, all structures of the network with their uncertainty out, no prompt needed.

A volume is cut into slices, and every slice is asked for by every pass of the uncertainty estimator. Logits, not
probabilities, are brought to the slice's own grid; there they become class probabilities, evidence and entropies, which
are averaged pass by pass, so that memory grows neither with the passes nor, unless probabilities are asked for or three
cuts are averaged, with the classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

from torch import nn

from medmargin.errors import ConfigError
from medmargin.imaging import Volume
from medmargin.inference.budget import plan_batches
from medmargin.inference.class_canvas import ClassCanvas, PlaneMean
from medmargin.inference.class_maps import ClassMaps
from medmargin.inference.class_network import ClassNetwork
from medmargin.inference.class_slices import SliceSegmenter
from medmargin.inference.embedding import image_embedding
from medmargin.inference.estimator_fit import require_able, require_alike
from medmargin.inference.margins import thresholds_reached
from medmargin.inference.network import Ask, predicting
from medmargin.inference.recalibration import SliceRescaling, concluded, rescaled_threshold
from medmargin.inference.results import label_values, segmentation_of
from medmargin.inference.segmentation import NO_PROMPTS, PROMPTS_FROM_USER, Segmentation
from medmargin.inference.slice_asks import across, slice_asks
from medmargin.inference.stack import Normalise, SliceStack
from medmargin.inference.trust import Trust
from medmargin.prompts.types import Prompt
from medmargin.uncertainty.calibration import Calibration
from medmargin.uncertainty.estimators import Estimator

Progress = Callable[[int, int], None]
Planes = Literal["axial", "three"]


class AutomaticPredictor:
    """Predicts with networks that answer all classes of a picture at once.

    Args:
        networks: one network, or the members of an ensemble, alike in `image_size`, `classes` and `evidence`; see
            `ClassNetwork`.
        structures: names of the classes 1..K-1.
        normalise: voxels [C, I, J, K] of a whole image -> the intensities pictures are cut from; None leaves them. Each
            picture is stretched to [0, 1] afterwards.
        uncertainty: how to ask.
        planes: "axial" cuts a volume as it was trained; "three" also cuts it across its two other axes and averages.
            Pictures and volumes of a single slice have one cut.
        level: of the volume intervals, in (0, 1).
        memory: bytes the process may hold; None aims at 4 GiB without refusing anything.
        threads: threads of the networks while they predict; None leaves torch's setting.

    Attributes:
        calibration, trust: what held-out patients taught, to be set afterwards; None: not calibrated.

    Raises:
        ConfigError: a value out of range, networks that differ or do not fit `structures`, or an estimator that does
            not fit the networks.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module] | nn.Module,
        *,
        structures: Sequence[str],
        uncertainty: Estimator,
        normalise: Normalise | None = None,
        planes: Planes = "axial",
        level: float = 0.9,
        memory: int | None = None,
        threads: int | None = None,
    ) -> None:
        if not 0 < level < 1 or planes not in ("axial", "three") or (threads is not None and threads < 1):
            raise ConfigError(
                f"level {level}, planes '{planes}', threads {threads}: expected a level between 0 and 1, planes "
                "'axial' or 'three', and at least one thread"
            )
        self.networks: tuple[nn.Module, ...] = (networks,) if isinstance(networks, nn.Module) else tuple(networks)
        self.structures = tuple(structures)
        self.normalise, self.uncertainty, self.planes = normalise, uncertainty, planes
        self.level, self.memory, self.threads = level, memory, threads
        self.calibration: Calibration | None = None
        self.trust: Trust | None = None
        self.checked()

    @property
    def forward_passes(self) -> int:
        """Answers averaged per voxel of a volume of several slices."""
        return self.uncertainty.members * (3 if self.planes == "three" else 1)

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

        Args:
            volume: a picture or a volume with 1 or 3 channels.
            prompts: boxes and points on top, in voxels of the image's own grid; see `slice_asks`.
            labels: structure name -> label value, for all structures; by default 1..K-1.
            prompts_source: where the prompts come from, for the record; "none" without prompts.
            probabilities: keep a probability map per structure.
            later_overwrites: None or False; classes exclude each other, so that no voxel is claimed twice.
            progress: called with (done, all) slices.

        Raises:
            ConfigError: a structure without a label value, or `later_overwrites`.
            PromptError: prompts outside the image or of other dimensions, a mask, or an unknown structure.
            DataError: an image without signal, or with another number of channels.
            BudgetError: not enough memory; raised before the work starts.
        """
        if later_overwrites:
            raise ConfigError("later_overwrites: the classes of this network exclude each other; leave it out")
        networks = self.checked()
        values = label_values(self.structures, labels)
        plan = self.uncertainty.plan()
        batches = plan_batches(
            volume,
            size=networks[0].image_size,
            structures=len(self.structures),
            keep_probabilities=probabilities,
            limit=self.memory,
            classes=len(self.structures) + 1,
            planes=3 if self.planes == "three" and min(volume.grid.shape) > 1 else 1,
        )
        stack = SliceStack(volume, self.normalise)
        stacks = (stack, *stack.across_other_axes()) if self.planes == "three" else (stack,)
        asks, warnings = self._asks(prompts, stacks, volume, networks[0].image_size)
        passes = len(plan) * len(stacks)
        calibration = self.calibration
        canvas = ClassCanvas(
            stack.shape,
            structures=len(self.structures),
            members=passes,
            keep_probabilities=probabilities,
            reached=thresholds_reached(calibration, self.structures, stack.shape),
        )
        with predicting(self.networks, self.threads):
            segmenter = SliceSegmenter(networks, plan, canvas=canvas, batch=batches.images, calibration=calibration)
            self._segment(segmenter, stacks, asks, progress)
        threshold = _flag_threshold(self.networks)
        answer = segmentation_of(
            canvas,
            stack=stack,
            image=volume,
            structures=values,
            level=self.level,
            prompts_source=prompts_source if prompts else NO_PROMPTS,
            uncertainty_source=self.uncertainty.name,
            forward_passes=passes,
            warnings=(*stack.warnings, *warnings),
            is_split=passes > 1 or networks[0].evidence is not None,
            maps=canvas.further,
            flag_threshold=threshold if calibration is None else rescaled_threshold(calibration, threshold),
            reached=canvas.reached,
            calibrated=calibration is not None,
        )
        needs_embedding = self.trust is not None and self.trust.needs_embedding
        embedding = image_embedding(self.networks[0], stack, self.threads) if needs_embedding else None
        return concluded(answer, calibration, self.trust, embedding)

    def checked(self) -> list[ClassNetwork]:
        """Return the networks if they, the structures and the estimator fit together.

        All of them may be set after construction; `predict` checks again.

        Raises:
            ConfigError: they do not.
        """
        networks = [cast(ClassNetwork, network) for network in self.networks]
        _require_fit(self.uncertainty, networks)
        classes, names = networks[0].classes, self.structures
        if classes != len(names) + 1 or len(set(names)) < len(names):
            raise ConfigError(
                f"structures {', '.join(names) or 'none'}: the network answers {classes} classes; expected "
                f"{classes - 1} different names (the background has none)"
            )
        return networks

    def _asks(
        self, prompts: Sequence[Prompt], stacks: Sequence[SliceStack], volume: Volume, size: int
    ) -> tuple[list[list[Ask]], list[str]]:
        """Write down what is asked of every slice of every cut; warnings are those of the first."""
        indices = {name: index for index, name in enumerate(self.structures)}
        asks, warnings = slice_asks(prompts, indices, stack=stacks[0], volume=volume, size=size)
        found = [asks]
        for stack in stacks[1:]:
            kept = across(prompts, stack, volume)
            found.append(slice_asks(kept, indices, stack=stack, volume=volume, size=size)[0])
        return found, warnings

    def _segment(
        self,
        segmenter: SliceSegmenter,
        stacks: tuple[SliceStack, ...],
        asks: Sequence[Sequence[Ask]],
        progress: Progress | None,
    ) -> None:
        """Draw every slice of one cut, or of the mean of all cuts."""
        canvas, total, done = segmenter.canvas, sum(len(cut) for cut in asks), 0
        mean = PlaneMean(stacks, len(self.structures) + 1) if len(stacks) > 1 else None
        rescaling = None if self.calibration is None else SliceRescaling(self.calibration, stacks[0])

        def draw(index: int, maps: ClassMaps) -> None:
            canvas.draw(index, maps if rescaling is None else rescaling.maps(index, maps))

        for plane, (stack, cut) in enumerate(zip(stacks, asks, strict=True)):
            for index, maps in segmenter.segment(stack, cut, plane):
                if mean is None:
                    draw(index, maps)
                else:
                    mean.add(stack, index, maps)
                done += 1
                if progress is not None:
                    progress(done, total)
        if mean is not None:
            for index in range(stacks[0].shape[0]):
                draw(index, mean.maps(stacks[0], index))


def _require_fit(estimator: Estimator, networks: Sequence[ClassNetwork]) -> None:
    """Refuse networks that differ, and an estimator that they cannot carry out."""
    require_alike(
        estimator, [f"{one.image_size} px, {one.classes} classes, evidence {one.evidence}" for one in networks]
    )
    require_able(estimator, networks[0])


def _flag_threshold(networks: Sequence[nn.Module]) -> float | None:
    """Read the vacuity from which training says to look twice, the mean over an ensemble; None where one has none."""
    found = [float(getattr(network, "flag_threshold", math.nan)) for network in networks]
    threshold = sum(found) / len(found)
    return None if math.isnan(threshold) else threshold
