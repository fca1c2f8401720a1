"""The kinds of uncertainty a user can ask for by name, and what each needs of a run."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medmargin.errors import ConfigError
from medmargin.runs import Run

if TYPE_CHECKING:
    from torch import nn

    from medmargin.inference import AutomaticPredictor, PromptedPredictor, VolumePredictor
    from medmargin.systems.system import Predictor

PROMPTED = ("prompt-perturbation", "none")
AUTOMATIC = ("evidential", "softmax", "test-time-augmentation", "mc-dropout", "ensemble", "snapshots")


def choose_uncertainty(name: str | None, predictor: Predictor, run: Run, others: Sequence[nn.Module]) -> None:
    """Give a predictor the estimator of a name; None leaves the system's own.

    Args:
        name: for a promptable system "prompt-perturbation" (asks again with moved and mirrored prompts) or "none" (asks
            once); for an automatic one "evidential" (one pass), "softmax" (entropy of one pass),
            "test-time-augmentation" (mirrors), "mc-dropout", "ensemble" (of `others`) or "snapshots" (weights the run
            kept on its way).
        predictor: changed in place. run: where it comes from.
        others: networks of further runs.

    Raises:
        ConfigError: an unknown name, or one that this run cannot serve.
    """
    from medmargin.inference import PromptedPredictor

    if name is None and others:
        name = "ensemble"
    if name is None:
        return
    known = PROMPTED if isinstance(predictor, PromptedPredictor) else AUTOMATIC
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"uncertainty '{name}' is unknown for {run.config.system}; nearest: {nearest}. "
            f"Choose one of {', '.join(known)}"
        )
    if isinstance(predictor, PromptedPredictor):
        _prompted(name, predictor, others)
    else:
        _automatic(name, predictor, run, others)


def _prompted(name: str, predictor: PromptedPredictor, others: Sequence[nn.Module]) -> None:
    from medmargin.uncertainty.prompt_perturbation import PromptPerturbation

    if others:
        raise ConfigError("ensembles are of automatic systems; a promptable one is asked again with other prompts")
    predictor.uncertainty = None if name == "none" else predictor.uncertainty or PromptPerturbation()


def _automatic(
    name: str, predictor: AutomaticPredictor | VolumePredictor, run: Run, others: Sequence[nn.Module]
) -> None:
    from medmargin.inference import VolumePredictor
    from medmargin.uncertainty import estimators

    if others and name != "ensemble":
        raise ConfigError(f"further members make an ensemble, not '{name}': leave out --member or --uncertainty")
    network, own = predictor.networks[0], predictor.uncertainty
    axes = own.axes if isinstance(own, estimators.VolumeMirrors) else ()  # members are asked as each is on its own
    if name == "ensemble":
        if not others:
            raise ConfigError("an ensemble needs further runs of the same task: give each with --member RUN")
        predictor.networks = (network, *others)
        predictor.uncertainty = estimators.Ensemble(len(predictor.networks), axes)
    elif name == "snapshots":
        snapshots = _snapshots(network, run)
        predictor.networks = (network, *snapshots)
        predictor.uncertainty = estimators.Snapshots(len(predictor.networks), axes)
    elif name == "evidential":
        if getattr(network, "evidence", None) is None:
            raise ConfigError(f"{run.folder}: this run has a softmax head and collects no evidence; ask for 'softmax'")
        predictor.uncertainty = estimators.Evidential()
    elif name == "softmax":
        predictor.uncertainty = estimators.Softmax()
    elif name == "mc-dropout":
        predictor.uncertainty = estimators.MonteCarloDropout()
    elif isinstance(predictor, VolumePredictor):
        if not predictor.mirror_axes:
            raise ConfigError(
                f"{run.folder}: trained without mirrored images, so their answers would be wrong, not uncertain. Train "
                "with --set augmentation=nnunet, or choose another uncertainty"
            )
        predictor.uncertainty = estimators.VolumeMirrors(predictor.mirror_axes)
    else:
        predictor.uncertainty = estimators.TestTimeAugmentation()
    predictor.checked()


def _snapshots(network: nn.Module, run: Run) -> list[nn.Module]:
    """Copy the network once for each set of weights the run kept while it trained."""
    import copy

    from medmargin.networks.weight_files import load_strictly
    from medmargin.runs import read_weights

    files = sorted(run.paths.snapshots.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{run.folder}: the run kept no snapshots; train it with --snapshots 4, for example")
    copies = []
    for file in files:
        copies.append(copy.deepcopy(network))
        load_strictly(copies[-1], read_weights(file), origin=str(file))
    return copies
