"""The page that explains one prediction: attribution on the ECG, its shares and faithfulness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from matplotlib.figure import Figure

from einthoven.errors import EvaluationError
from einthoven.files import Json, write_json, write_text
from einthoven.records.limb_leads import derive_limb_leads
from einthoven.records.record import Record
from einthoven.report.ecg import AGAINST, FOR, ecg_paper
from einthoven.report.figures import COLOURS, GREY, add_title_and_grid, drawing, to_svg
from einthoven.report.page import render

if TYPE_CHECKING:
    from einthoven.explain import Attribution, Curves, Faithfulness, Shares


@dataclass(frozen=True)
class Prediction:
    """What a page states about the prediction that it explains.

    Attributes
    ----------
    model, digest : str
        Name of the model, and its digest.
    label, meaning : str
        Label, class or number, and its wording if it has one.
    value : float
        Calibrated probability if the model has a calibration, or the number.
    unit : str
        Of a number.
    threshold : float or None
        Probability from which on the label is called present.
    warnings : tuple of str
        Findings on the recording that are more than notes.
    is_probability : bool
    """

    model: str
    digest: str
    label: str
    meaning: str
    value: float
    unit: str = ""
    threshold: float | None = None
    warnings: tuple[str, ...] = ()
    is_probability: bool = True


def write_explanation(
    out: str | Path,
    prediction: Prediction,
    record: Record,
    attribution: Attribution,
    shares: Shares,
    faithfulness: Faithfulness,
    *,
    similar: Sequence[Json] = (),
    command: str = "",
) -> Path:
    """Write the page about one prediction, and its numbers as JSON beside it.

    Parameters
    ----------
    out : path
        The page; the JSON has the same name with `.json`.
    similar : sequence of dict
        Similar records: `record`, `distance` and `labels`, the nearest first.
    command : str
        The command that wrote the page.

    Raises
    ------
    EvaluationError
        If `out` does not end in `.html`.
    """
    page = check_page(out)
    data = explanation_data(prediction, attribution, shares, faithfulness, similar, command)
    figure = explanation_figure(record, attribution)
    write_text(page, explanation_page(data, figure, faithfulness.curves))
    write_json(page.with_suffix(".json"), data)
    return page


def check_page(out: str | Path) -> Path:
    """Refuse a page whose name does not end in `.html`."""
    page = Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise EvaluationError(
            f"the page {page} does not end in .html", remedy="name it explanation.html"
        )
    return page


def explanation_figure(record: Record, attribution: Attribution, *, name: str = "ecg") -> str:
    """Draw a record on paper with an attribution as colour under the traces, as one `<svg>`."""
    return ecg_paper(derive_limb_leads(record), attribution=attribution, name=name)


def explanation_data(
    prediction: Prediction,
    attribution: Attribution,
    shares: Shares,
    faithfulness: Faithfulness,
    similar: Sequence[Json] = (),
    command: str = "",
) -> Json:
    """The numbers of the page, as plain JSON types."""
    curves = faithfulness.curves
    return {
        "prediction": vars(prediction) | {"warnings": list(prediction.warnings)},
        "attribution": {
            "method": attribution.method,
            "baseline": attribution.baseline,
            "output": attribution.output,
            "baseline_output": attribution.baseline_output,
            "completeness_error": attribution.completeness_error,
            "resolves": list(attribution.resolves),
            "is_for_label": attribution.is_for_label,
        },
        "shares": {
            "words": shares.in_words(),
            "against": shares.against,
            "by_lead": shares.by_lead,
            "by_wave": shares.by_wave,
            "by_beat": {str(beat): value for beat, value in shares.by_beat.items()},
            "waves": {
                wave: dict(zip(shares.leads, shares.of_wave(wave).tolist(), strict=True))
                for wave in shares.by_wave
            },
        },
        "faithfulness": {
            "areas": curves.areas,
            "gain": curves.gain,
            "reinitialisation": faithfulness.reinitialisation,
            "agreement": faithfulness.agreement,
        },
        "similar": list(similar),
        "command": command,
    }


def explanation_page(data: Json, figure: str, curves: Curves) -> str:
    """Render the page from `explanation_data`, an ECG and the curves."""
    sections = {
        "ecg": "On the ECG",
        "shares": "Where the evidence lies",
        "faithfulness": "How far to trust the colours",
        "similar": data["similar"] and "Similar records",
        "limitations": "Limitations",
    }
    return render(
        "explanation.html.j2",
        data=data,
        simulated=False,
        sections={key: str(title) for key, title in sections.items() if title},
        figure_of_ecg=Markup(figure),
        curves=curves_figures(curves, is_probability=data["prediction"]["is_probability"]),
        colours={"for": FOR, "against": AGAINST},
        shares_table=_shares_table(data),
        similar_table=_similar_table(data),
    )


def curves_figures(curves: Curves, *, is_probability: bool = True) -> list[Markup]:
    """Draw the deletion and the insertion curve, each beside that of random orders."""
    panels = {
        "deletion": ("Deletion, the most important first", curves.deletion, curves.random_deletion),
        "insertion": ("Insertion, likewise", curves.insertion, curves.random_insertion),
    }
    drawings = []
    for name, (title, line, random) in panels.items():
        with drawing():
            figure = Figure(figsize=(4.0, 2.4))
            axes = figure.add_axes((0.13, 0.18, 0.85, 0.7))
            add_title_and_grid(axes, title)
            axes.plot(100 * curves.shares, line, color=COLOURS[0], lw=1.5)
            axes.plot(100 * curves.shares, random, color=GREY, ls="--", lw=1.5)
            axes.set_xlabel("share of the cells, %")
            axes.set_ylabel("probability, not calibrated" if is_probability else "number")
            if is_probability:
                axes.set_ylim(-0.03, 1.03)
            alt = f"Prediction during {name} of cells, beside random orders"
            drawings.append(to_svg(figure, name=name, alt=alt))
    return drawings


def _shares_table(data: Json) -> Json | None:
    """Share of each wave of each lead, on a ground that is darker the larger it is."""
    if not {"wave", "lead"} <= set(data["attribution"]["resolves"]):
        return None
    waves, by_lead = data["shares"]["waves"], data["shares"]["by_lead"]
    largest = max((value for row in waves.values() for value in row.values()), default=0) or 1

    def cell(value: float) -> Markup:
        depth = round(70 * value / largest)
        ground = f"background: color-mix(in srgb, {FOR} {depth}%, transparent)"
        return Markup('<span class="heat" style="{}">{}</span>').format(ground, _percent(value))

    rows = [
        [wave, *(cell(value) for value in row.values()), _percent(sum(row.values()))]
        for wave, row in waves.items()
    ]
    rows.append(["all", *map(_percent, by_lead.values()), _percent(sum(by_lead.values()))])
    return {
        "identity": "shares-table",
        "kind": "numbers dense heats",
        "caption": "Share of the evidence for the label by window and lead, in percent.",
        "head": ["", *by_lead, "all"],
        "cells": rows,
    }


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _similar_table(data: Json) -> Json | None:
    if not data["similar"]:
        return None
    rows: list[list[Any]] = [
        [row["record"], f"{row['distance']:.3f}", ", ".join(row["labels"]) or "none"]
        for row in data["similar"]
    ]
    return {
        "identity": "similar-table",
        "kind": "items words",
        "caption": "Nearest records: one minus the cosine of the embeddings, and labels.",
        "head": ["Record", "Distance", "Labels"],
        "cells": rows,
    }
