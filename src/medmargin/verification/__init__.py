"""The authors' own numbers, recomputed: one module per published part, found by its file name.

`u_medsam.py` answers to the slug `u-medsam`. A module has `TOLERANCE: float` and
`recompute(reference) -> dict[name, array]`, keyed like the outputs of the file; where a few outputs have a tolerance of
their own it also has `tolerance_of(name) -> float`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medmargin.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from medmargin.verification.comparison import OutputComparison

__all__ = ["VerificationResult", "list_verifiable", "verify"]


@dataclass(frozen=True)
class VerificationResult:
    """The outcome of recomputing one reference file.

    Attributes:
        slug: the published part.
        reference: the file.
        passed: every output is within its tolerance.
        tolerance: of the part; see `OutputComparison.tolerance` for each output's own.
        outputs: one comparison per output of the file, by name.
    """

    slug: str
    reference: Path
    passed: bool
    tolerance: float
    outputs: list[OutputComparison]


def list_verifiable() -> list[str]:
    """Slugs that `verify` knows; reads the source, imports nothing heavy."""
    folder = Path(__file__).parent
    return sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if _defines_recompute(path))


def verify(slug: str, reference: Path | str) -> VerificationResult:
    """Recompute every output of a reference file and compare it with the number in the file.

    The parts are built from the sizes in the file's `config` and its weights are loaded strictly, so any file of the
    part's format can be verified, whatever its widths, depths and image sizes. The rule of comparison is that of
    `medmargin.verification.comparison.compare`. One thread computes, so that rounding does not depend on the number of
    processor cores.

    Args:
        slug: name of the published part, for example 'medsam-lite' (see `list_verifiable`).
        reference: safetensors file with the inputs, weights and expected outputs.

    Raises:
        ConfigError: no such slug.
        CheckpointError: the file is not a reference of this part, or has an output the part does not know.
    """
    from medmargin.verification.comparison import compare
    from medmargin.verification.reference import Reference
    from medmargin.verification.threads import one_thread

    module = _module(slug)
    content = Reference.read(reference)
    try:
        with one_thread():
            recomputed = module.recompute(content)
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{content.path}: not a reference of '{slug}', or damaged: {error}") from error
    unknown = sorted(content.outputs.keys() - recomputed.keys())
    if unknown:
        raise CheckpointError(
            f"{content.path}: '{slug}' cannot recompute {', '.join(unknown)}; it knows {', '.join(sorted(recomputed))}"
        )
    tolerance_of = getattr(module, "tolerance_of", lambda name: module.TOLERANCE)
    outputs = [
        compare(name, recomputed[name], expected, tolerance_of(name))
        for name, expected in sorted(content.outputs.items())
    ]
    passed = all(output.passed for output in outputs)
    return VerificationResult(slug, content.path, passed, module.TOLERANCE, outputs)


def _module(slug: str) -> ModuleType:
    known = list_verifiable()
    if slug not in known:
        nearest = difflib.get_close_matches(slug, known, n=3, cutoff=0.0)
        raise ConfigError(f"nothing called '{slug}' can be verified. Nearest: {', '.join(nearest)}")
    return importlib.import_module(f"{__name__}.{slug.replace('-', '_')}")


def _defines_recompute(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "recompute" for node in body)
