"""Fitted parts as JSON objects: exact on the way back, refused by the name of the field where damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from medmargin.errors import CheckpointError


class Stored(BaseModel):
    """What calibration has fitted; plain numbers only, so that `from_json(to_json())` is the same object."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Give the object for `storage.write_json`."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, source: object = "calibration") -> Self:
        """Read what `to_json` gave.

        Args:
            content: the object. source: file the error names.

        Raises:
            CheckpointError: a field is missing, unknown, or of a wrong type or range; names it.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the whole object"
            raise CheckpointError(
                f"{source}: {cls.__name__}: field '{field}': {first['msg']}. Calibrate the run again."
            ) from error
