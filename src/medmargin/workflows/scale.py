"""The choice between the paper's configuration and the laptop's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger(__name__)


def choose_scale(asked: str | None, settings: Mapping[str, Any]) -> str:
    """Choose the scale of a training.

    Args:
        asked: "laptop", "paper" or None: the laptop's where no GPU is found.
        settings: the user's arguments; official weights (a file as `init` or `teacher`) fit the paper's scale only.
    """
    if asked is not None:
        return asked
    has_official = any(settings.get(name) not in (None, "none", "shipped") for name in ("init", "teacher"))
    if has_official:
        return "paper"
    import torch

    if torch.cuda.is_available():
        return "paper"
    _log.warning("no GPU found: training at laptop scale; ask for the paper's with --scale paper")
    return "laptop"
