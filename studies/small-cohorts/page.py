"""Write the results of the study into its page: tables and curves by the number of records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from arms import ARMS
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tasks import ATTRIBUTES
from train import RESULTS

from einthoven.files import Json, read_lines
from einthoven.report.figures import standing_alone, to_svg
from einthoven.reproduce.page import write_sections
from einthoven.reproduce.tables import Section

PAGE = Path(__file__).parents[2] / "docs" / "small-cohorts.md"
REFERENCE = "auto"
RESAMPLES, SEED = 2000, 0
FEWEST_TASKS = 12
"""Fewest tasks behind a point of a curve: means over other tasks would not be comparable."""
CELL = ["task", "records", "draw"]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
METRICS = {"auroc": "AUROC", "log_loss": "log loss", "recall": "recall at the threshold"}


def read_results(folder: Path) -> pd.DataFrame:
    """One row a training."""
    return pd.DataFrame([line for file in folder.glob("*.jsonl") for line in read_lines(file)])


def paired(results: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Scores of an arm minus those of `auto` on the same cohorts; log loss as a ratio minus one."""
    own, reference = (results[results["arm"] == name].set_index(CELL) for name in (arm, REFERENCE))
    own, reference = own.align(reference, join="inner", axis=0)
    differences = own[list(METRICS)] - reference[list(METRICS)]
    differences["log_loss"] /= reference["log_loss"]
    return differences.reset_index()


def mean_with_interval(values: pd.Series, tasks: pd.Series) -> tuple[float, list[float]]:
    """Mean over tasks of the mean over draws, and the 95 % interval of resampled tasks."""
    means = values.groupby(tasks.to_numpy()).mean().to_numpy()
    rows = np.random.default_rng(SEED).integers(len(means), size=(RESAMPLES, len(means)))
    limits: NDArray[np.float64] = np.quantile(means[rows].mean(axis=1), [0.025, 0.975])
    return float(means.mean()), limits.tolist()


def summary(results: pd.DataFrame) -> Json:
    """Means of every arm by size, and its paired differences from `auto`."""
    entries = []
    for arm in ARMS:
        for size, rows in results[results["arm"] == arm].groupby("records"):
            entry: Json = {"arm": arm, "records": int(size), "cohorts": len(rows)}
            entry["tasks"] = int(rows["task"].nunique())
            entry["seconds"] = float(rows["seconds"].median())
            for metric in METRICS:
                value, limits = mean_with_interval(rows[metric], rows["task"])
                entry[metric] = {"mean": value, "interval": limits}
            differences = paired(results[results["records"] == size], arm)
            if arm != REFERENCE and len(differences):
                entry["compared"] = len(differences)
                for metric in METRICS:
                    value, limits = mean_with_interval(differences[metric], differences["task"])
                    entry[f"{metric}_difference"] = {"mean": value, "interval": limits}
            entries.append(entry)
    return {"entries": entries, "resamples": RESAMPLES, "seed": SEED}


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def differences_table(numbers: Json, metric: str, places: int, factor: float = 1) -> str:
    """Differences of every arm from `auto`, a column a size."""
    entries = {(e["arm"], e["records"]): e for e in numbers["entries"] if "compared" in e}
    sizes = sorted({size for _, size in entries})
    rows = [["arm", *(f"{size:,}" for size in sizes)]]
    for arm in dict.fromkeys(arm for arm, _ in entries):
        cells = []
        for size in sizes:
            entry = entries.get((arm, size), {}).get(f"{metric}_difference")
            if entry is None:
                cells.append("")
                continue
            low, high = (factor * limit for limit in entry["interval"])
            count = entries[arm, size]["compared"]
            interval = f" ({low:+.{places}f} to {high:+.{places}f})" if count > 1 else ""
            cells.append(f"{factor * entry['mean']:+.{places}f}{interval}, {count}")
        rows.append([arm, *cells])
    return table(rows)


def means_table(numbers: Json) -> str:
    """Means of `auto` by size."""
    rows = [["records", "cohorts, tasks", *METRICS.values(), "seconds (median)"]]
    for entry in numbers["entries"]:
        if entry["arm"] == REFERENCE:
            values = [
                f"{entry[m]['mean']:.3f} ({entry[m]['interval'][0]:.3f} to "
                f"{entry[m]['interval'][1]:.3f})"
                for m in METRICS
            ]
            counts = f"{entry['cohorts']}, {entry['tasks']}"
            rows.append([f"{entry['records']:,}", counts, *values, f"{entry['seconds']:.0f}"])
    return table(rows)


def figure(numbers: Json) -> str:
    """Curves of AUROC, log loss and recall by size, with intervals over tasks."""
    drawing = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (metric, name) in zip(drawing.subplots(1, 3), METRICS.items(), strict=True):
        for arm, colour in zip(ARMS, COLOURS, strict=True):
            entries = [
                e for e in numbers["entries"] if e["arm"] == arm and e["tasks"] >= FEWEST_TASKS
            ]
            if not entries:
                continue
            sizes = [e["records"] for e in entries]
            low, high = ([e[metric]["interval"][i] for e in entries] for i in (0, 1))
            axes.plot(sizes, [e[metric]["mean"] for e in entries], "o-", ms=3, c=colour, label=arm)
            axes.fill_between(sizes, low, high, color=colour, alpha=0.08, lw=0)
        axes.set(xscale="log", xlabel="training records", title=name)
        axes.set_xticks([50, 100, 200, 500, 1000, 2000], ["50", "100", "200", "500", "1k", "2k"])
        axes.minorticks_off()
    drawing.axes[0].legend(frameon=False, fontsize=7)
    alt = "AUROC, log loss and recall by the number of training records, for every arm"
    return standing_alone(to_svg(drawing, name="small-cohorts", alt=alt))


def section(results: pd.DataFrame) -> Section:
    """The section of the page."""
    numbers = summary(results)
    untaught = results[results["task"].isin(list(ATTRIBUTES))]
    numbers["untaught"] = summary(untaught)["entries"]
    file = "small-cohorts.svg"
    parts = [
        "## Results",
        f"{len(results):,} trainings are finished; the tables have what they allow to compare.",
        f"![Curves by the number of records](figures/{file})",
        f"A point of a curve needs {FEWEST_TASKS} tasks.",
        "Means of `auto`, with 95 % intervals over tasks:",
        means_table(numbers),
        "AUROC of each arm minus that of `auto` on the same cohorts, with the number of cohorts:",
        differences_table(numbers, "auroc", 4),
        "Log loss, in percent of that of `auto`:",
        differences_table(numbers, "log_loss", 1, 100),
        "Recall at the threshold of each:",
        differences_table(numbers, "recall", 3),
        f"AUROC on the tasks without a taught statement ({', '.join(ATTRIBUTES)}):",
        differences_table(summary(untaught), "auroc", 4),
    ]
    return Section("small-cohorts", "", "", "\n\n".join(parts), numbers, {file: figure(numbers)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page from the finished trainings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", type=Path, default=PAGE, help="page")
    options = parser.parse_args(arguments)
    write_sections(options.write, [section(read_results(options.results))])


if __name__ == "__main__":
    sys.exit(main())
