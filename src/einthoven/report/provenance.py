"""Where a run's numbers come from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from einthoven.report import facts
from einthoven.report.format import duration
from einthoven.report.markup import Html, definitions, element, fragment
from einthoven.report.values import data

Json = Mapping[str, Any]


def provenance(report: Json) -> Html:
    """Recipe, data, environment and command of every run, and how to make the page again."""
    runs = [_run(run, opened=i == 0) for i, run in enumerate(report["runs"])]
    made = element("p", "Written by einthoven ", element("code", report["einthoven"]), ".")
    return fragment(*runs, _commands(report["commands"]), made)


def _commands(commands: list[str]) -> Html | None:
    if not commands:
        return None
    listed = element("pre", element("code", "\n".join(commands)))
    return element("div", element("h3", "Commands"), listed, id="commands")


def _run(run: Json, *, opened: bool) -> Html:
    about = run["about"]
    asked = facts.asked_of(about)
    groups = (
        ("Data and model", _data(asked, run)),
        ("Recipe", list(facts.flattened(asked.get("recipe") or {}))),
        ("Environment", list(facts.flattened(about.get("environment") or {}))),
    )
    blocks = [element("div", element("h4", name), _pairs(pairs)) for name, pairs in groups]
    command = about.get("command")
    line = shlex.join(map(str, command)) if isinstance(command, list) else facts.text(command)
    return element(
        "details",
        element("summary", run["name"]),
        element("div", *blocks, class_="facts"),
        element("h4", "Command"),
        element("pre", element("code", line)),
        open=opened,
        class_="provenance",
    )


def _pairs(pairs: list[tuple[str, str]]) -> Html:
    return definitions(pairs) if pairs else element("p", facts.UNKNOWN)


def _data(asked: Json, run: Json) -> list[tuple[str, str]]:
    cohort, inside = facts.cohort_of(asked), facts.ptbxl_inside(asked)
    entries = {
        "backbone": asked.get("backbone"),
        "weights": facts.weights_sentence(asked),
        "licence of the weights": facts.weights_licence(asked),
        **({"PTB-XL among their pretraining data": inside} if inside else {}),
        "cohort": cohort.get("name"),
        "version": cohort.get("version"),
        "task": cohort.get("task"),
        "labels": len(asked["labels"]) if asked.get("labels") else None,
        "digest of ids, folds and targets": cohort.get("digest"),
        "digest of the records": asked.get("records_digest"),
        "processes": asked.get("world"),
    }
    predicted = {f"predictions: {key}": value for key, value in run["predictions"].items()}
    training = run["training"]
    seconds = data(training["seconds"], duration(training["seconds"]))
    return [
        *((name, facts.text(value)) for name, value in (entries | predicted).items()),
        (f"wall time of {training['seconds_of']}", seconds),
    ]
