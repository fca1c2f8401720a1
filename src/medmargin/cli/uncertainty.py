"""The options that choose an estimator of uncertainty, the same wherever something is predicted."""

from __future__ import annotations

from typing import Annotated

import typer

Uncertainty = Annotated[
    str | None,
    typer.Option(
        help="Estimator. Automatic systems: evidential, softmax, test-time-augmentation, mc-dropout, ensemble, "
        "snapshots; promptable ones: prompt-perturbation, none. Default: the system's own."
    ),
]
Uncalibrated = Annotated[
    bool, typer.Option("--uncalibrated", help="Leave the run's calibration out (see medmargin calibrate).")
]
Members = Annotated[
    list[str] | None,
    typer.Option("--member", metavar="RUN", help="A further run of the same task, for an ensemble; may be repeated."),
]
