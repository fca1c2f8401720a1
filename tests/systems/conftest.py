"""Tasks with a plan, for the systems that follow one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from medmargin.datasets import Task
from medmargin.datasets.planning import LAPTOP, Fingerprint, make_plan

NESTED = {"whole": (1, 2), "core": (2,)}


@pytest.fixture
def planned_task() -> Callable[..., Task]:
    """Make a task of two structures in small volumes, or pictures, with the plan of the laptop's scale."""

    def make(*, sides: tuple[int, int, int] = (24, 28, 20), regions: bool = False) -> Task:
        structures = {"whole": 1, "core": 2} if regions else {"organ": 1, "lesion": 2}
        dims, unit = (2, "px") if 1 in sides else (3, "mm")
        task = Task("toy", ("MRI",), structures, dims=dims, unit=unit, regions=NESTED if regions else {})
        found = Fingerprint(task, (sides,) * 4, ((1.0, 1.0, 1.0),) * 4, 1.0, {}, dict.fromkeys(structures, 4))
        return replace(task, plan=make_plan(found, scale=LAPTOP))

    return make
