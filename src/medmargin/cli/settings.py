"""`--set name=value`, as often as needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from medmargin.errors import ConfigError

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Argument of the system, or @FILE.yaml with several."),
]


def parsed_settings(settings: Sequence[str] | None) -> dict[str, Any]:
    """Read `--set` options; later ones win.

    Args:
        settings: "name=value" texts, or "@file.yaml" with a flat mapping.

    Raises:
        ConfigError: neither form, or a file that is no flat mapping.
    """
    found: dict[str, Any] = {}
    for text in settings or ():
        if text.startswith("@"):
            found |= _from_file(Path(text[1:]))
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set '{text}': expected name=value, as in --set lr=3e-4")
        found[name.strip()] = value.strip()
    return found


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--set @{path}: cannot be read ({error})") from error
    if not isinstance(content, dict) or any(isinstance(value, dict) for value in content.values()):
        raise ConfigError(f"--set @{path}: expected a flat mapping of argument names to values")
    return content
