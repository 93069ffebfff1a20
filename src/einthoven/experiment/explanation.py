"""Explanations of a finished run's examples by the run's own model."""

from __future__ import annotations

from pathlib import Path

from einthoven.explain import Attribution, Shares, attribute, shares_of
from einthoven.files import CONFIG_FILE
from einthoven.models import load_model
from einthoven.records.record import Record
from einthoven.report.cases import Explain


def explainer(run: Path) -> Explain | None:
    """Function that attributes a label of a record to its samples; None for a run without a model.

    The model is the final one of the run, on the CPU, opened at the first record.
    """
    folder = run / "model"
    if not (folder / CONFIG_FILE).is_file():
        return None
    model = None

    def explain(record: Record, label: str) -> tuple[Attribution, Shares]:
        nonlocal model
        model = model or load_model(folder)
        attribution = attribute(model, record, label)
        return attribution, shares_of(attribution, record)

    return explain
