"""`PromptedPredictor`: boxes, points and masks in, a segmentation with its uncertainty out.

A picture is encoded once for all its objects. A volume is cut into slices: an object with a box in every slice is asked
for slice by slice, one with a box around several slices is followed from its middle slice (see `slices`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from medmargin.errors import ConfigError, PromptError
from medmargin.imaging import Volume
from medmargin.inference.budget import plan_batches
from medmargin.inference.canvas import Canvas
from medmargin.inference.embedding import image_embedding
from medmargin.inference.framing import Framing
from medmargin.inference.margins import thresholds_reached
from medmargin.inference.network import BatchedNetwork, predicting
from medmargin.inference.prompt_checks import case_of
from medmargin.inference.recalibration import ObjectRescaling, concluded
from medmargin.inference.results import segmentation_of
from medmargin.inference.scenes import SceneSegmenter
from medmargin.inference.segmentation import PROMPTS_FROM_USER, SINGLE_ANSWER, Segmentation
from medmargin.inference.slices import segment_prompted_slices, segment_sweeps
from medmargin.inference.stack import Normalise, SliceStack
from medmargin.inference.targets import Target, targets_from
from medmargin.inference.trust import Trust
from medmargin.networks.promptable import Promptable
from medmargin.prompts.types import Prompt
from medmargin.uncertainty.calibration import Calibration
from medmargin.uncertainty.prompt_perturbation import Member, PromptPerturbation

Progress = Callable[[int, int], None]


class PromptedPredictor:
    """Predicts with a promptable network.

    Args:
        network: what is asked; its `image_size` is the side of the square it looks at.
        framing: which part of a picture it looks at.
        normalise: voxels [C, I, J, K] of a whole image -> the intensities pictures are cut from; None leaves them. Each
            picture is stretched to [0, 1] afterwards.
        uncertainty: how to ask again; None asks once, and the entropy of that answer is the total uncertainty.
        enlarge: free space around the previous slice's mask in slice propagation, in network pixels.
        level: of the volume intervals, in (0, 1).
        memory: bytes the process may hold; None aims at 4 GiB without refusing anything.
        threads: threads of the network while it predicts; None leaves torch's setting.

    Attributes:
        calibration, trust: what held-out patients taught, to be set afterwards; None: not calibrated.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        network: Promptable,
        *,
        framing: Framing | None = None,
        normalise: Normalise | None = None,
        uncertainty: PromptPerturbation | None = PromptPerturbation(),
        enlarge: int = 3,
        level: float = 0.9,
        memory: int | None = None,
        threads: int | None = None,
    ) -> None:
        if not 0 < level < 1 or enlarge < 0 or (threads is not None and threads < 1):
            raise ConfigError(
                f"level {level}, enlarge {enlarge}, threads {threads}: expected a level between 0 and 1, enlarge of at "
                "least 0 and at least one thread"
            )
        self.network = network
        self.framing = framing or Framing()
        self.normalise = normalise
        self.uncertainty = uncertainty
        self.enlarge, self.level = enlarge, level
        self.memory, self.threads = memory, threads
        self.calibration: Calibration | None = None
        self.trust: Trust | None = None

    @property
    def forward_passes(self) -> int:
        """Answers averaged per object."""
        return self.uncertainty.members if self.uncertainty else 1

    def predict(
        self,
        volume: Volume,
        prompts: Sequence[Prompt],
        *,
        labels: Mapping[str, int] | None = None,
        prompts_source: str = PROMPTS_FROM_USER,
        probabilities: bool = True,
        later_overwrites: bool | None = None,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Segment the prompted structures of an image.

        Args:
            volume: a picture or a volume with 1 or 3 channels.
            prompts: in voxels of the image's own grid; several prompts of one structure are joined.
            labels: structure name -> label value; by default 1, 2, ... in the order of the prompts.
            prompts_source: where the prompts come from, for the record.
            probabilities: keep a probability map per structure.
            later_overwrites: give a voxel claimed by several structures to the last one instead of the most probable
                one; None does so for challenge NPZ images only, whose results are defined that way.
            progress: called with (done, all) objects times slices.

        Raises:
            PromptError: no prompts, prompts outside the image or of other dimensions, a structure not in `labels`.
            DataError: an image without signal, or with another number of channels.
            BudgetError: not enough memory; raised before the work starts.
        """
        structures = _structures(prompts, labels, volume)
        batches = plan_batches(
            volume,
            size=self.network.image_size,
            structures=len(structures),
            keep_probabilities=probabilities,
            limit=self.memory,
        )
        stack = SliceStack(volume, self.normalise)
        indices = {name: index for index, name in enumerate(structures)}
        targets, warnings = targets_from(prompts, indices, stack=stack, volume=volume)
        members = self.uncertainty.plan() if self.uncertainty else (Member(),)
        calibration = self.calibration
        strangers = [name for name in structures if calibration is not None and name not in calibration.structures]
        warnings += [f"'{name}' was not among the calibrated structures: it is not calibrated" for name in strangers]
        canvas = Canvas(
            stack.shape,
            structures=len(structures),
            members=len(members),
            later_overwrites=volume.format == "npz" if later_overwrites is None else later_overwrites,
            keep_probabilities=probabilities,
            reached=thresholds_reached(calibration, [*structures], stack.shape),
        )
        with predicting([self.network], self.threads):
            network = BatchedNetwork(self.network, batches)
            rescaling = None if calibration is None else ObjectRescaling(calibration, [*structures])
            segmenter = SceneSegmenter(
                network, members, framing=self.framing, stack=stack, canvas=canvas, rescaling=rescaling
            )
            self._segment(segmenter, targets, progress)
        answer = segmentation_of(
            canvas,
            stack=stack,
            image=volume,
            structures=structures,
            level=self.level,
            prompts_source=prompts_source,
            uncertainty_source=self.uncertainty.name if self.uncertainty else SINGLE_ANSWER,
            forward_passes=len(members),
            warnings=(*stack.warnings, *warnings),
            reached=canvas.reached,
            calibrated=calibration is not None and not strangers,
        )
        needs_embedding = self.trust is not None and self.trust.needs_embedding
        embedding = image_embedding(self.network, stack, self.threads) if needs_embedding else None
        return concluded(answer, calibration, self.trust, embedding)

    def _segment(self, segmenter: SceneSegmenter, targets: Sequence[Target], progress: Progress | None) -> None:
        total = sum(target.slices for target in targets)
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        segment_prompted_slices(segmenter, [target for target in targets if target.sweep is None], step=step)
        followed = [target for target in targets if target.sweep is not None]
        segment_sweeps(segmenter, followed, enlarge=self.enlarge, step=step)


def _structures(prompts: Sequence[Prompt], labels: Mapping[str, int] | None, volume: Volume) -> dict[str, int]:
    """Give the prompted structures, in order of first mention, their label values."""
    names = list(dict.fromkeys(prompt.structure for prompt in prompts))
    if labels is None:
        return {name: index for index, name in enumerate(names, start=1)}
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise PromptError(
            f"{case_of(volume)}: structure '{unknown[0]}' is unknown; expected one of {', '.join(labels)}."
        )
    return {name: int(labels[name]) for name in names}
