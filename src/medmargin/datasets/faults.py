"""What can be wrong with a data set, as records a table or a program can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["E", "W"]


@dataclass(frozen=True)
class Fault:
    """One finding.

    Attributes:
        kind: "E" the case (or the data set) cannot be used as it is; "W" usable, but the user should know.
        code: stable short name of the cause, e.g. "label-values".
        case: name of the case, or None where the whole data set is meant.
        message: what was found, what was expected, what to do.
        repair: option of `medmargin data fix` that repairs it, e.g. "--resample-labels", or None.
    """

    kind: Kind
    code: str
    case: str | None
    message: str
    repair: str | None = None


@dataclass(frozen=True)
class CheckReport:
    """Outcome of a check.

    Attributes:
        dataset: name of the data set.
        cases: how many images were read, test images included.
        structures: structure name -> number of training cases that hold it.
        empty_labels: number of training cases whose label is all background (legal, but metrics need a rule for it).
        faults: findings, data set first, then by case.
    """

    dataset: str
    cases: int
    structures: dict[str, int]
    empty_labels: int
    faults: tuple[Fault, ...]

    @property
    def errors(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.kind == "E")

    @property
    def warnings(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.kind == "W")

    def to_dict(self) -> dict[str, Any]:
        """Turn the report into plain JSON types."""
        return {
            "dataset": self.dataset,
            "cases": self.cases,
            "structures": self.structures,
            "empty_labels": self.empty_labels,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "faults": [asdict(fault) for fault in self.faults],
        }


def sorted_faults(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Order findings for reading: the whole data set first, then by case, errors before warnings."""
    return tuple(sorted(faults, key=lambda fault: (fault.case or "", fault.kind, fault.code)))
