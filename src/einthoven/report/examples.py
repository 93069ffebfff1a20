"""Example ECGs: the trace on paper, what is true of it, and what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einthoven.records.record import Record
from einthoven.report.ecg import ecg_paper
from einthoven.report.format import number
from einthoven.report.markup import Html, element, figure, fragment, table
from einthoven.report.values import data

SHOWN = 6  # labels with the highest probabilities; true ones are always shown


def example_section(report: Mapping[str, Any], place: int, record: Record, *, number: int) -> Html:
    """One example: its figure, and its predictions beside the truth."""
    entry = report["examples"][place]
    identity = f"example-{place + 1}"
    drawing = Html(ecg_paper(record, title=entry["title"], name=f"{identity}-ecg"))
    paper = element(
        "div", drawing, class_="paper", role="region", aria_label=entry["title"], tabindex="0"
    )
    hash_ = entry["source_hash"]
    caption = fragment(
        f"Figure {number}. {entry['title']}: {entry['seconds']:.4g} s at {entry['rate']:g} Hz, ",
        f"{len(entry['leads'])} leads. Drawn at 25 mm/s and 10 mm/mV, true to size on an A4 "
        "sheet in landscape; every lead about its median.",
        f" SHA-256 of the file {hash_[:16]}…" if hash_ else None,
    )
    return element(
        "article",
        element("h3", entry["title"]),
        figure(f"{identity}-figure", paper, caption, class_="ecg"),
        _predictions(report, entry, identity),
        id=identity,
        class_="example",
    )


def shown_labels(probabilities: Mapping[str, float], truth: list[str]) -> list[str]:
    """The labels with the highest probabilities and the true ones, most probable first."""
    ranked = sorted(probabilities, key=lambda label: (-probabilities[label], label))
    absent = [label for label in truth if label not in probabilities]
    return [x for i, x in enumerate(ranked) if i < SHOWN or x in truth] + absent


def _predictions(report: Mapping[str, Any], entry: Mapping[str, Any], identity: str) -> Html:
    run = report["runs"][0]["name"]
    truth = ", ".join(entry["truth"]) or "none of the labels"
    rows = [
        _row(report, label, entry) for label in shown_labels(entry["probabilities"], entry["truth"])
    ]
    return table(
        f"{identity}-predictions",
        f"What {run} predicts for {entry['title']}. True: {truth}.",
        head=["Label", "Probability", "", "Truth"],
        rows=rows,
        class_="predictions",
    )


def _row(report: Mapping[str, Any], label: str, entry: Mapping[str, Any]) -> list[Html]:
    probability = entry["probabilities"].get(label)
    true = label in entry["truth"]
    wording = report["descriptions"].get(label)
    named = element("span", f" {wording}", class_="wording") if wording else None
    width = f"width:{100 * (probability or 0):.1f}%"
    bar = element("span", class_="bar true" if true else "bar", style=width)
    return [
        fragment(element("strong", label) if true else label, named),
        data(probability, number(probability, places=2)),
        element("span", bar, class_="track", aria_hidden="true"),
        element("strong", "✓ true") if true else fragment(""),
    ]
