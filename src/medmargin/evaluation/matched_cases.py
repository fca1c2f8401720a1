"""What several results have in common: cases, structures, truths. The rest is named, never dropped silently."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medmargin.errors import DataError

Answer = Mapping[str, Any]
Entry = Mapping[str, Any]
_SAME_SIZE = 1e-6  # relative difference of two true volumes that only rounding makes
_LISTED = 5  # cases named in a warning


def common_cases(results: Mapping[str, Answer]) -> tuple[list[tuple[Entry, ...]], list[dict[str, str]]]:
    """Match the cases of several answers of `evaluate --json` by name.

    Returns:
        Per common case its entry in every result, in the order of the first result; and {"case", "reason"} of each
        other case.

    Raises:
        DataError: no common case, a case that stands twice in a result, or that belongs to different patients.
    """
    entries = {name: _by_case(name, answer) for name, answer in results.items()}
    failed = {name: {item["case"] for item in answer.get("failed", ())} for name, answer in results.items()}
    matched: list[tuple[Entry, ...]] = []
    left_out: list[dict[str, str]] = []
    for case in _in_order(*entries.values(), *failed.values()):
        lacking = [name for name in results if case not in entries[name]]
        if lacking:
            reasons = (f"{'failed' if case in failed[name] else 'missing'} in {name}" for name in lacking)
            left_out.append({"case": case, "reason": ", ".join(reasons)})
            continue
        owners = {name: found[case]["patient"] for name, found in entries.items()}
        if len(set(owners.values())) > 1:
            listed = ", ".join(f"'{owner}' in {name}" for name, owner in owners.items())
            raise DataError(f"{case}: belongs to different patients: {listed}. Compare evaluations of one data set.")
        matched.append(tuple(found[case] for found in entries.values()))
    if not matched:
        held = "; ".join(f"{name} holds {', '.join(list(found)[:3]) or 'none'} .." for name, found in entries.items())
        raise DataError(f"the results have no case in common ({held}). Evaluate the runs on the same split.")
    return matched, left_out


def common_structures(
    matched: Sequence[tuple[Entry, ...]], names: Sequence[str]
) -> tuple[list[str], list[dict[str, str]]]:
    """Find the structures that every case of every result holds; and {"structure", "reason"} of each other one.

    Raises:
        DataError: there is none.
    """
    lacking: dict[str, dict[str, None]] = {}
    for structure in _in_order(*(entry["structures"] for entries in matched for entry in entries)):
        lacking[structure] = {
            name: None for entries in matched for name, entry in zip(names, entries, strict=True)
            if structure not in entry["structures"]
        }  # fmt: skip
    common = [structure for structure, without in lacking.items() if not without]
    if not common:
        listed = "; ".join(f"{name}: {', '.join(e['structures'])}" for name, e in zip(names, matched[0], strict=True))
        raise DataError(f"the results have no structure in common ({listed})")
    left_out = [
        {"structure": structure, "reason": f"missing in {', '.join(without)}"}
        for structure, without in lacking.items()
        if without
    ]
    return common, left_out


def different_truths(matched: Sequence[tuple[Entry, ...]], structures: Sequence[str]) -> list[str]:
    """Warn, in one sentence, of cases whose true volume is not the same in all results."""

    def differs(entries: tuple[Entry, ...]) -> bool:
        for structure in structures:
            volumes = [
                (e.get("volumes_px") or e.get("volumes_ml") or {}).get(structure, {}).get("true") for e in entries
            ]
            if None not in volumes and max(volumes) - min(volumes) > _SAME_SIZE * max(volumes):
                return True
        return False

    strange = [entries[0]["case"] for entries in matched if differs(entries)]
    if not strange:
        return []
    listed = ", ".join(strange[:_LISTED]) + (" .." if len(strange) > _LISTED else "")
    return [
        f"The true volumes of {len(strange)} of {len(matched)} cases differ between the results ({listed}): they were "
        "not measured against the same truth, so the differences are not those of the masks alone."
    ]


def _by_case(name: str, answer: Answer) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in answer["cases"]:
        if entry["case"] in found:
            raise DataError(f"{name}: the case '{entry['case']}' stands twice in it. Evaluate with unique case names.")
        found[entry["case"]] = entry
    return found


def _in_order(*groups: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(itertools.chain.from_iterable(groups)))
