"""`medmargin systems`: the list of systems, or one of them in detail."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from medmargin.cli.answer import print_json, print_table


def systems(
    slug: Annotated[str | None, typer.Argument(help="One system, for example u-medsam.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the systems, or show one: docstring, hyper-parameters, needs, measured results.

    Example: medmargin systems u-medsam
    """
    from medmargin.systems.registry import catalogue

    if slug is not None:
        _one(slug, json)
        return
    entries = catalogue().values()
    if json:
        print_json([_listed(entry) for entry in entries])
    else:
        rows = [(e.slug, e.title, e.paper, f"{e.dims}-D", ", ".join(e.needs)) for e in entries]
        print_table("Systems", ("slug", "title", "paper", "dims", "needs"), rows)


def _listed(entry: Any) -> dict[str, Any]:
    from medmargin.systems.measured import measured

    return {
        "slug": entry.slug,
        "title": entry.title,
        "paper": entry.paper,
        "dims": entry.dims,
        "needs": list(entry.needs),
        "stages": list(entry.stages),
        "measured": measured(entry.slug),
    }


def _one(slug: str, json: bool) -> None:
    from medmargin.systems.registry import catalogue, describe_arguments, find

    build = find(slug)
    about, documentation = (inspect.getdoc(part) or "" for part in (inspect.getmodule(build), build))
    listed = _listed(catalogue()[slug])
    arguments = describe_arguments(slug)
    if json:
        print_json({**listed, "about": about, "documentation": documentation, "arguments": arguments})
        return
    typer.echo(f"{about}\n\n{documentation}\n")
    rows = [(a["name"], a["type"], a["default"], a.get("laptop", "")) for a in arguments]
    print_table("Hyper-parameters", ("name", "type", "paper", "laptop, where it differs"), rows)
    print_table("Measured", ("what", "result"), [(m["what"], m["result"]) for m in listed["measured"]])
