"""The model card: what a model is, what it was trained on, and its evaluation, as Markdown."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from einthoven.files import Json
from einthoven.report import tables
from einthoven.report.data import UNKNOWN, cohort_of, describe, flat, is_synthetic, leakage
from einthoven.report.data import text as recorded
from einthoven.report.format import confidence


def model_card(
    config: Json,
    evaluation: Json | None = None,
    *,
    reliability: str | None = None,
) -> str:
    """Write the model card of a model folder.

    Sections without information are left out: an encoder has no labels, a model without an
    evaluation no results.

    Parameters
    ----------
    config : mapping
        The contents of `config.json`.
    evaluation : mapping, optional
        The contents of `evaluation.json`: `score`, `validation`, `calibration`, `subgroups`,
        `robustness`; `cohort` and `split` name the records of the evaluation.
    reliability : str, optional
        File of the reliability diagram, relative to the card.

    Returns
    -------
    str
        Markdown with the YAML front matter of the Hugging Face hub.
    """
    model, values, evaluation = describe(config), flat(config), evaluation or {}
    score = evaluation.get("score")
    return _CARDS.get_template("card.md.j2").render(
        front_matter=Markup(_front_matter(model, values)),
        model=model,
        name=recorded(model["name"] or model["backbone"]),
        values=values,
        is_synthetic=is_synthetic(model["cohort"]),
        is_ptbxl=model["cohort"].get("name") == "ptb-xl" or model["contains_ptbxl"] == "yes",
        leakage=leakage(config, evaluation),
        evaluation=evaluation,
        cohort=cohort_of(evaluation),
        score=score,
        macro=tables.splits_table(evaluation) if score else None,
        label_table=tables.labels_table(score) if score else None,
        reliability=reliability,
        calibration=evaluation.get("calibration"),
        robustness=evaluation.get("robustness"),
        **tables.evaluation_tables(evaluation),
    )


def _front_matter(model: Json, values: Json) -> str:
    """Metadata for the Hugging Face hub; strings as JSON, which is YAML."""
    licence = str(model["license"] or "unknown").lower()
    family = str(values.get("family") or model["backbone"] or "").replace("_", "-")
    task = "multi-label-classification" if model["labels"] else "feature-extraction"
    tags = ["ecg", "electrocardiogram", "einthoven", family, task, *values.get("tags", ())]
    lines = [
        f"license: {json.dumps(licence)}",
        *(["license_name: stated-below"] if licence == "other" else []),
        "library_name: einthoven",
        "tags:",
        *(f"- {json.dumps(tag)}" for tag in dict.fromkeys(tags) if tag),
    ]
    return "\n".join(lines)


def _finalize(value: Any) -> Any:
    """Escape whatever is not Markdown already."""
    if value is None:
        return UNKNOWN
    return value if isinstance(value, Markup) else tables.escaped(str(value))


def _code(value: object) -> Markup:
    """A value that can stand between backticks."""
    return Markup(recorded(value).replace("`", "'").replace("\n", " "))


_CARDS = Environment(
    loader=FileSystemLoader(tables.TEMPLATES),
    finalize=_finalize,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_CARDS.filters["code"] = _code
_CARDS.globals |= {
    "confidence": confidence,
    "count": tables.count,
    "metric": tables.metric,
    "policies": tables.UNDEFINED,
    "resamples_of": tables.resamples_of,
    "share": tables.share,
    "text": recorded,
}
