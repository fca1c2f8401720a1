"""The report of a comparison: one HTML file that says what differs, how surely, and how little few patients can say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmargin.evaluation.comparison import MEAN_OF_STRUCTURES, WHOLE_CASE
from medmargin.evaluation.comparison_figures import difference_figure
from medmargin.evaluation.page import embedded, p_value, write_page

GLOSSARY = {
    "Difference": "The first result minus the second, averaged over patients; every patient is compared with itself.",
    "95 % interval": "With other patients of the same kind, the mean difference would lie in this range 95 times out "
    "of 100. It is that of one comparison, not corrected for their number.",
    "p": "How often differences at least this uneven would arise if neither result were better (Wilcoxon signed-rank). "
    "It weighs ranks, the interval the mean: a few extreme patients can part the two.",
    "p (Holm)": "The same after paying for the number of comparisons; up to 0.05 counts as shown.",
    "Effect r": "Rank-biserial correlation: 1 if the first has the larger number in every patient, -1 if the second, "
    "0 if balanced. It says how consistent a difference is, not how large.",
    "d_z": "The mean difference in units of its standard deviation over patients: 0.2 small, 0.5 medium, 0.8 large.",
    "Ranks first": "Share of 1000 samples of the patients, drawn with replacement, in which this result has the best "
    "mean.",
    "Kendall's tau": "How alike the ranking of such a sample and that of all patients are: 1 the same, -1 reversed.",
    "Too few to tell": "With so few patients that differ, and so many comparisons, no p could have reached 0.05.",
    "No difference shown": "Not the same as equal: the interval says which differences remain possible.",
}


def write_comparison(path: Path | str, comparison: Mapping[str, Any]) -> None:
    """Write the report of what `compare_results` returned.

    Raises:
        BudgetError: the file cannot be written.
    """
    metrics = comparison["metrics"]
    figures = {
        name: embedded(difference_figure(metric))
        for name, metric in metrics.items()
        if any(row["pairs"] for row in metric["rows"].values())
    }
    names = [described["name"] for described in comparison["results"]]
    write_page(
        path,
        "comparison.html.j2",
        comparison=comparison,
        title=f"{', '.join(names[:-1])} and {names[-1]} compared",
        findings=[_finding(metric) for metric in metrics.values()],
        figures=figures,
        glossary=GLOSSARY,
    )


def _finding(metric: Mapping[str, Any]) -> dict[str, str]:
    """Say the outcome of one metric in a sentence or two: its mean over structures, or its only row."""
    name = next((row for row in (MEAN_OF_STRUCTURES, WHOLE_CASE) if row in metric["rows"]), next(iter(metric["rows"])))
    row = metric["rows"][name]
    question = f"{metric['title']} ({name})"
    if not row["n"]:
        return {"question": question, "figure": "n/a", "meaning": f"Not compared: {row['reason']}.", "tone": "plain"}
    best, *others = row["ranking"]["order"]
    shown = [pair for pair in row["pairs"] if pair["is_shown"] and pair["better"] == best]
    means = ", ".join(f"{result} {row['means'][result]['mean']:.3f}" for result in row["ranking"]["order"])
    meaning = f"Means over {row['n_patients']} patients: {means}. "
    if len(shown) == len(others):
        p = p_value(max(pair["p_holm"] for pair in shown))
        meaning += f"It is better than {'the other' if len(others) == 1 else 'every other'} result (p, Holm: {p})."
        return {"question": question, "figure": f"{best} is best", "meaning": meaning, "tone": "good"}
    verdicts = {pair["verdict"] for pair in row["pairs"]}
    if verdicts == {"no difference"}:
        return {"question": question, "figure": "no difference", "meaning": meaning, "tone": "plain"}
    figure = "too few to tell" if verdicts <= {"too few to tell", "no difference"} else "no clear winner"
    if row["ranking"]["first"]:
        meaning += f"{best} ranks first in {100 * row['ranking']['first'][best]:.0f} % of the samples of patients."
    return {"question": question, "figure": figure, "meaning": meaning, "tone": "plain"}
