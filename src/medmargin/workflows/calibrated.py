"""A run that was calibrated: its calibration is used by itself, for the answers that it was fitted to."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from medmargin.errors import CheckpointError, ConfigError
from medmargin.runs import Run
from medmargin.storage import sha256

if TYPE_CHECKING:
    from medmargin.systems.system import Predictor

_log = logging.getLogger(__name__)


def attach_calibration(predictor: Predictor, run: Run, others: Sequence[Run]) -> str:
    """Give a predictor the calibration of its run, if there is one and it fits.

    Args:
        predictor: changed in place, its level too. run: whose calibration is used. others: members of an ensemble.

    Returns:
        Why the calibration is not used, also logged; empty where it is used or there is none.

    Raises:
        CheckpointError: a file of the calibration is damaged, or belongs to other weights than the run has now.
    """
    from medmargin.inference.trust import read_trust
    from medmargin.uncertainty.calibration import read_calibration

    if not run.paths.calibration.exists():
        return ""
    calibration = read_calibration(run.paths.calibration)
    trust = read_trust(run.paths.trust) if run.paths.trust.exists() else None
    mine, *members = weights_of(run, others)
    fitted_mine, *fitted_members = calibration.data.get("weights", [mine])
    if mine != fitted_mine:
        raise CheckpointError(
            f"{run.paths.calibration}: belongs to other weights than {run.paths.weights} holds. Calibrate the run "
            "again, or ask for the uncalibrated answer with --uncalibrated."
        )
    _require_structures(predictor, run, calibration.structures)
    try:
        calibration.require_estimator(estimator_name(predictor))
    except ConfigError as error:
        reason = f"{run.folder}: not calibrated: {error}"
    else:
        reason = "" if members == fitted_members else f"{run.folder}: not calibrated: it was for other members"
    if reason:
        _log.warning(reason)
        return reason
    predictor.calibration, predictor.trust, predictor.level = calibration, trust, calibration.level
    return ""


def estimator_name(predictor: Predictor) -> str:
    """Name what an answer's uncertainty is computed from, with the number of answers where there are several."""
    from medmargin.inference.segmentation import SINGLE_ANSWER

    name, passes = predictor.uncertainty.name if predictor.uncertainty else SINGLE_ANSWER, predictor.forward_passes
    return name if passes == 1 else f"{name}, {passes} answers"


def weights_of(run: Run, others: Sequence[Run]) -> list[str]:
    """Identify the weights that answer by their SHA-256, those of `run` first."""
    return [sha256(each.paths.weights) for each in (run, *others)]


@contextmanager
def switched_off(predictor: Predictor) -> Iterator[None]:
    """Predict without calibration inside the block; the level of the intervals stays."""
    calibration, trust = predictor.calibration, predictor.trust
    predictor.calibration = predictor.trust = None
    try:
        yield
    finally:
        predictor.calibration, predictor.trust = calibration, trust


def _require_structures(predictor: Predictor, run: Run, calibrated: Sequence[str]) -> None:
    own = getattr(predictor, "structures", calibrated)
    if tuple(own) != tuple(calibrated):
        raise CheckpointError(
            f"{run.paths.calibration}: calibrates {', '.join(calibrated)}, but the run answers {', '.join(own)}. "
            "Calibrate the run again."
        )
