"""Rules for label maps as a run keeps them: every later prediction of it uses them (see `rule_choice`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from medmargin.errors import CheckpointError
from medmargin.inference import Rule, VolumePredictor
from medmargin.runs import Run
from medmargin.storage import write_json


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int = 1
    rules: list[Rule]
    cases: int
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True)
class ChosenRules:
    """The rules and what they do to the mean Dice of each structure.

    Attributes:
        rules: one per structure that gets any. cases: predictions they were chosen on.
        before, after: structure -> mean Dice without and with all rules.
    """

    rules: tuple[Rule, ...]
    cases: int
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give plain types only: the content of `rules.json`."""
        return {"format": 1, **asdict(self)}


def write_rules(run: Run, chosen: ChosenRules) -> None:
    """Keep the rules in a run folder. Raises BudgetError: it cannot be written."""
    write_json(run.paths.rules, chosen.to_dict())


def attach_rules(predictor: Any, run: Run) -> None:
    """Give a predictor the rules of its run, where it has any.

    Raises:
        CheckpointError: the file is damaged or names structures that the run does not know.
    """
    if not run.paths.rules.exists():
        return
    try:
        rules = _Content.model_validate_json(run.paths.rules.read_bytes()).rules
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{run.paths.rules}: damaged ({error}). Copy it again, or delete it.") from error
    known = getattr(predictor, "structures", ())
    strange = [rule.structure for rule in rules if rule.structure not in known]
    if strange or not isinstance(predictor, VolumePredictor):
        raise CheckpointError(
            f"{run.paths.rules}: belongs to another run: this one "
            f"{f'has no structure {strange[0]}' if strange else 'uses no rules'}. Delete the file."
        )
    predictor.rules = tuple(rules)
