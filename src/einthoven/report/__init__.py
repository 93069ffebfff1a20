"""Numbers and figures as a page with its JSON, and as a model card; no model is loaded here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einthoven.report.card import model_card
    from einthoven.report.data import Example, PairedRuns, ReportRun, report_data
    from einthoven.report.page import build_page, write_report

_MODULES = {
    "Example": "data",
    "PairedRuns": "data",
    "ReportRun": "data",
    "build_page": "page",
    "model_card": "card",
    "report_data": "data",
    "write_report": "page",
}

__all__ = [
    "Example",
    "PairedRuns",
    "ReportRun",
    "build_page",
    "model_card",
    "report_data",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # matplotlib and pandas are imported when a report is written.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
