"""The border to other people's decoders: whatever they raise on damaged bytes becomes an error that names the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from medmargin.errors import BudgetError, DataError, MissingExtraError, ToolkitError


@contextmanager
def decoding(source: object, what: str) -> Iterator[None]:
    """Turn a decoder's error into a `DataError` naming `source` and `what` was being read.

    Damaged bytes make format libraries raise almost any exception (struct.error, KeyError, SyntaxError, ...), so
    everything is caught here; keep only calls of such a library inside the block. Its own Python warnings are dropped:
    what a user has to know stands in `Volume.warnings`.

    Raises:
        DataError: the library could not read the bytes.
        BudgetError: memory ran out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ToolkitError:
        raise
    except MemoryError as error:
        raise BudgetError(
            f"{source}: not enough memory to read this {what}. Free memory or use a smaller image."
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{source}: damaged or unsupported {what} ({reason}). Export or copy the file again."
        ) from error


def load_extra(package: str, *, extra: str, purpose: str) -> Any:
    """Import an optional dependency when it is first needed.

    Raises:
        MissingExtraError: `package` is not installed; the message names the extra.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtraError(package.partition(".")[0], extra, purpose) from error
