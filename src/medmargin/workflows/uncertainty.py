"""The kinds of uncertainty a user can ask for by name."""

from __future__ import annotations

import difflib

from medmargin.errors import ConfigError
from medmargin.uncertainty.prompt_perturbation import PromptPerturbation

KINDS = ("prompt-perturbation", "none")


def chosen_uncertainty(name: str, usual: PromptPerturbation | None) -> PromptPerturbation | None:
    """Turn a name into an estimator.

    Args:
        name: "prompt-perturbation" asks again with moved and mirrored prompts; "none" asks once.
        usual: the system's own estimator, kept where it is of the asked kind.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in KINDS:
        nearest = difflib.get_close_matches(name, KINDS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"uncertainty '{name}' is unknown; nearest: {nearest}. Choose one of {', '.join(KINDS)}")
    if name == "none":
        return None
    return usual or PromptPerturbation()
