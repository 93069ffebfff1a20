"""Numbers and figures to a page, its JSON, and a model card."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einthoven.report.card import model_card
    from einthoven.report.inputs import Example, PairedRuns, ReportRun
    from einthoven.report.numbers import report_json
    from einthoven.report.page import build_page, write_report
    from einthoven.report.pretraining import PretrainingRun, pretraining_page

_HOMES = {
    "Example": "inputs",
    "PairedRuns": "inputs",
    "PretrainingRun": "pretraining",
    "ReportRun": "inputs",
    "build_page": "page",
    "model_card": "card",
    "pretraining_page": "pretraining",
    "report_json": "numbers",
    "write_report": "page",
}

__all__ = [
    "Example",
    "PairedRuns",
    "PretrainingRun",
    "ReportRun",
    "build_page",
    "model_card",
    "pretraining_page",
    "report_json",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # matplotlib and pandas wait until somebody writes a report.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
