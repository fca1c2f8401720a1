"""Many measured cases to one answer: the JSON object of `medmargin evaluate`."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from medmargin.evaluation.conventions import conventions
from medmargin.evaluation.error_detection import Ranking
from medmargin.evaluation.measure import CaseResult
from medmargin.evaluation.risk_coverage import (
    RiskCoverage,
    augrc,
    aurc,
    excess_aurc,
    oracle,
    risk_coverage,
    risk_coverage_of_errors,
)
from medmargin.evaluation.states import State
from medmargin.evaluation.statistics import patient_interval
from medmargin.evaluation.voxels import VoxelCounter, VoxelTally, voxel_figures
