"""The registry of systems: a function whose signature is its configuration, found by its file name.

`u_medsam.py` holds `u-medsam`. The catalogue reads the decorators as literals, so listing systems imports nothing
heavy. Other packages add systems through entry points in the group `medmargin.systems` (name = slug, value = module).
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medmargin.errors import ConfigError
from medmargin.systems.system import System

SCALES = ("laptop", "paper")


@dataclass(frozen=True)
class Entry:
    """What the catalogue knows of a system without building it.

    Attributes:
        slug: its name, also its file name. title: first line of the file's docstring. paper: arXiv id or DOI.
        dims: 2 or 3. needs: what it asks of the data ("labelled", "boxes", ...). stages: its learning stages.
        laptop: arguments that differ at laptop scale. module: where it lives.
    """

    slug: str
    title: str
    paper: str
    dims: int
    needs: tuple[str, ...]
    stages: tuple[str, ...]
    module: str
    laptop: Mapping[str, Any] = field(default_factory=dict)


def system(
    slug: str, *, paper: str, dims: int, needs: tuple[str, ...], stages: tuple[str, ...], laptop: Mapping[str, Any]
) -> Callable[[Callable[..., System]], Callable[..., System]]:
    """Declare a system; every argument is a literal, because the catalogue reads the source.

    Args:
        slug: name on the command line; equals the file name with dashes.
        paper: arXiv id or DOI. dims: 2 or 3. needs: what the data must offer. stages: names of the learning stages.
        laptop: keyword arguments that replace the paper's at `--scale laptop`.
    """

    def mark(build: Callable[..., System]) -> Callable[..., System]:
        module = build.__module__
        title = _title(sys.modules[module].__doc__)
        entry = Entry(slug, title, paper, dims, needs, stages, module, dict(laptop))
        build.entry = entry  # type: ignore[attr-defined]
        return build

    return mark


def catalogue() -> dict[str, Entry]:
    """List all systems by slug, without importing torch.

    Raises:
        ConfigError: two systems share a slug.
    """
    found: dict[str, Entry] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        entry = _read_entry(path, f"{__package__}.{path.stem}")
        if entry is not None:
            found[entry.slug] = entry
    for point in entry_points(group="medmargin.systems"):
        spec = importlib.util.find_spec(point.value)
        entry = _read_entry(Path(spec.origin), point.value) if spec and spec.origin else None
        if entry is None:
            continue
        if entry.slug in found:
            raise ConfigError(f"two systems are called '{entry.slug}': {found[entry.slug].module} and {entry.module}")
        found[entry.slug] = entry
    return found


def find(slug: str) -> Callable[..., System]:
    """Import the function of a system.

    Raises:
        ConfigError: no such system; names the three nearest.
    """
    entries = catalogue()
    if slug not in entries:
        nearest = difflib.get_close_matches(slug, entries, n=3, cutoff=0.0)
        raise ConfigError(f"there is no system '{slug}'. Nearest: {', '.join(nearest)}. See: medmargin systems")
    module = importlib.import_module(entries[slug].module)
    functions = [item for item in vars(module).values() if getattr(getattr(item, "entry", None), "slug", None) == slug]
    return functions[0]


def resolve_arguments(slug: str, scale: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a system's defaults, its laptop arguments and the user's settings, and check them against the signature.

    Args:
        slug: the system. scale: "paper" or "laptop".
        settings: name -> value; strings are read as YAML ("3e-4", "true", "[1, 2]").

    Raises:
        ConfigError: unknown scale or argument name (answered with the nearest), or a value of the wrong type.
    """
    if scale not in SCALES:
        raise ConfigError(f"scale '{scale}' is unknown: choose one of {', '.join(SCALES)}")
    build = find(slug)
    parameters = _parameters(build)
    values = {name: parameter.default for name, parameter in parameters.items()}
    if scale == "laptop":
        values.update(build.entry.laptop)  # type: ignore[attr-defined]
    hints = inspect.get_annotations(build, eval_str=True)
    for name, value in settings.items():
        if name not in parameters:
            nearest = difflib.get_close_matches(name, parameters, n=3, cutoff=0.0)
            raise ConfigError(f"system '{slug}' has no argument '{name}'. Nearest: {', '.join(nearest)}")
        values[name] = _checked(slug, name, value, hints[name])
    return values


def describe_arguments(slug: str) -> list[dict[str, Any]]:
    """List a system's arguments: name, type, default of the paper, value at laptop scale where it differs."""
    build = find(slug)
    laptop = build.entry.laptop  # type: ignore[attr-defined]
    return [
        {"name": name, "type": str(parameter.annotation), "default": parameter.default,
         **({"laptop": laptop[name]} if name in laptop else {})}
        for name, parameter in _parameters(build).items()
    ]  # fmt: skip


def build_system(slug: str, task: Any, arguments: Mapping[str, Any]) -> System:
    """Build a system for a task from resolved arguments (see `resolve_arguments`)."""
    return find(slug)(task, **arguments)


def _parameters(build: Callable[..., System]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(build).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _checked(slug: str, name: str, value: Any, hint: Any) -> Any:
    adapter = TypeAdapter(hint, config=ConfigDict(strict=False))
    problem = ""
    for candidate in _readings(value) if isinstance(value, str) else [value]:
        try:
            return adapter.validate_python(candidate)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
    raise ConfigError(f"system '{slug}': {name}={value!r} is not accepted: {problem}")


def _readings(text: str) -> list[Any]:
    """Give what a typed value may mean: itself, what YAML makes of it, and a list such as 1,2 or (1, 2)."""
    found: list[Any] = [text]  # comes first: YAML reads "off" as false and 1e-4 as text
    for form in (text, f"[{text.strip().strip('()[]')}]") if "," in text else (text,):
        with suppress(yaml.YAMLError):
            found.append(yaml.safe_load(form))
    return found


def _read_entry(path: Path, module: str) -> Entry | None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "system":
                arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
                slug = ast.literal_eval(call.args[0])
                return Entry(slug, _title(ast.get_docstring(tree)), module=module, **arguments)
    return None


def _title(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n")[0].rstrip(".")
