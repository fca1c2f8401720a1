"""Metrics, statistics and the report.

`measure_case` measures one case, `summarise` turns any number of them into the answer of `medmargin evaluate`,
`medmargin.evaluation.report.write_report` shows it to a person. The metrics are pure functions on NumPy arrays; each
module names its conventions. Nothing here needs torch.
"""

from medmargin.evaluation.measure import CaseResult, measure_case
from medmargin.evaluation.summary import summarise
from medmargin.evaluation.volumes import VolumeInterval

__all__ = ["CaseResult", "VolumeInterval", "measure_case", "summarise"]
