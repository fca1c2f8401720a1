"""Learning with Lightning: streams of batches, learners, and the one place that runs them (`training.fit`)."""

from __future__ import annotations

from importlib.util import find_spec

from medmargin.errors import MissingExtraError

if find_spec("lightning") is None:
    raise MissingExtraError("lightning", "train", "training")
