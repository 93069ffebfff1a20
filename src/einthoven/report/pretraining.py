"""The page of pretraining runs: their losses, and what they were trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from einthoven.report import facts
from einthoven.report.curves import History, panel_curves
from einthoven.report.format import NONE, duration
from einthoven.report.frame import framed, section
from einthoven.report.markup import Html, element, figure, fragment, table
from einthoven.report.provenance import provenance
from einthoven.report.values import data, whole
from einthoven.version import __version__

_LOSSES = {"train_loss": "Training loss", "validation_loss": "Validation loss"}
_MOST_PANELS = 4


@dataclass(frozen=True)
class PretrainingRun:
    """A pretraining, finished or not.

    Attributes
    ----------
    name : str
        What the page calls it.
    about : mapping
        Its run.json.
    history : sequence of mapping
        Its lines of metrics.jsonl.
    """

    name: str
    about: Mapping[str, Any]
    history: History


def pretraining_page(
    runs: Sequence[PretrainingRun], *, title: str, commands: Sequence[str] = ()
) -> str:
    """One HTML page: curves of losses and metrics, a table of every run, provenance."""
    sections = (
        ("losses", "Losses", fragment(_curves(runs), _summary(runs))),
        ("epochs", "Every epoch", fragment(*(_epochs(run, i) for i, run in enumerate(runs)))),
        ("provenance", "Provenance", provenance(_document(runs, commands))),
    )
    about = facts.asked_of(runs[0].about)
    header = element(
        "header",
        element("h1", title),
        element("p", f"{facts.text(about.get('backbone'))} on {_data(about)}", class_="subtitle"),
    )
    return framed(title, header, element("main", *(section(*each) for each in sections)))


def lowest(history: History) -> Mapping[str, Any] | None:
    """The line of the lowest validation loss, the earliest on a tie; none without validation."""
    scored = [line for line in history if line.get("validation_loss") is not None]
    return min(scored, key=lambda line: float(line["validation_loss"]), default=None)


def _data(asked: Mapping[str, Any]) -> str:
    """`ptb-xl 1.0.3 (17,418 records)`, or every cohort with its share of the draws."""
    cohorts = asked.get("cohorts") or [asked]
    drawn = sum(each.get("draws", 0) for each in cohorts)
    named = [
        f"{facts.text(each.get('cohort'))} {facts.text(each.get('version'))} "
        f"({each.get('records', 0):,} records"
        + (f", {each['draws'] / drawn:.1%} of the draws)" if drawn else ")")
        for each in cohorts
    ]
    return ", ".join(named)


def _panels(runs: Sequence[PretrainingRun]) -> dict[str, str]:
    present = {key for run in runs for line in run.history for key in line}
    panels = {key: title for key, title in _LOSSES.items() if key in present}
    more = sorted(
        key
        for key in present
        if key.startswith("validation_") and key not in _LOSSES and _tells(key, runs)
    )
    named = {key: key.replace("validation_", "Validation ").replace("_", " ") for key in more}
    return dict(islice((panels | named).items(), _MOST_PANELS))


def _tells(key: str, runs: Sequence[PretrainingRun]) -> bool:
    """Whether a number is neither the loss again, nor the same in every epoch, nor a time."""
    lines = [line for run in runs for line in run.history if line.get(key) is not None]
    is_loss = all(line[key] == line.get("validation_loss") for line in lines)
    return not is_loss and key != "validation_seconds" and len({line[key] for line in lines}) > 1


def _curves(runs: Sequence[PretrainingRun]) -> Html:
    panels = _panels(runs)
    what = ", ".join(panels.values())
    drawing = Html(panel_curves({run.name: run.history for run in runs}, panels, what=what))
    caption = (
        "Figure 1. Losses by epoch. Validation is measured on the same records, crops and masks "
        "after every epoch. Losses of different objectives, or of different masks, do not compare."
    )
    return figure("figure-losses", element("div", drawing, class_="wide"), caption)


def _summary(runs: Sequence[PretrainingRun]) -> Html:
    head = ("run", "epochs", "training loss", "validation loss", "lowest", "at epoch", "time")
    rows = [list(_summary_row(run)) for run in runs]
    return table("table-runs", "Table 1. Where every run has come to.", head=head, rows=rows)


def _summary_row(run: PretrainingRun) -> Iterator[str]:
    last, best = run.history[-1], lowest(run.history)
    planned = (facts.asked_of(run.about).get("recipe") or {}).get("epochs")
    yield run.name
    yield f"{last['epoch']} of {facts.text(planned)}"
    yield _number(last.get("train_loss"))
    yield _number(last.get("validation_loss"))
    yield _number(best["validation_loss"] if best else None)
    yield whole(best["epoch"]) if best else NONE
    seconds = _seconds(run.history)
    yield data(seconds, duration(seconds))


def _epochs(run: PretrainingRun, place: int) -> Html:
    keys = [key for key in run.history[-1] if key != "epoch"]
    rows = [[str(line["epoch"]), *(_number(line.get(key)) for key in keys)] for line in run.history]
    head = ["epoch", *(key.replace("_", " ") for key in keys)]
    listed = table(f"table-epochs-{place}", f"Every epoch of {run.name}.", head=head, rows=rows)
    return element("details", element("summary", run.name), listed)


def _number(value: float | None) -> Html:
    return data(value, NONE if value is None else f"{value:.4g}")


def _seconds(history: History) -> float:
    spent = [line.get("seconds", 0) + line.get("validation_seconds", 0) for line in history]
    return float(sum(spent))


def _document(runs: Sequence[PretrainingRun], commands: Sequence[str]) -> dict[str, Any]:
    return {
        "einthoven": __version__,
        "commands": list(commands),
        "runs": [
            {
                "name": run.name,
                "about": run.about,
                "predictions": {},
                "training": {"seconds": _seconds(run.history), "seconds_of": "pretraining"},
            }
            for run in runs
        ],
    }
