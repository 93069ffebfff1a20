"""The model card: what a model is, what it was trained on, and its evaluation, as Markdown."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from einthoven.files import Json
from einthoven.report import tables
from einthoven.report.clinical import clinical_tables
from einthoven.report.coverage import coverage_tables
from einthoven.report.description import (
    UNKNOWN,
    cohort_of,
    describe,
    flat,
    history_text,
    leakage,
    text,
)
from einthoven.report.format import confidence
from einthoven.report.measures import (
    class_calibration_table,
    classes_table,
    confusion_table,
    measures_table,
    value_subgroup_tables,
)
from einthoven.report.overview import overview
from einthoven.report.robustness import robustness_table
from einthoven.report.tables import Table
from einthoven.tasks import Task, kind_of


def model_card(
    config: Json,
    evaluation: Json | None = None,
    *,
    reliability: str | None = None,
    curves: str | None = None,
    measures: str | None = None,
) -> str:
    """Write the model card of a model folder: Markdown with the front matter of Hugging Face.

    Sections without information are left out: an encoder has no labels, a model without an
    evaluation no results.

    Parameters
    ----------
    config : mapping
        The contents of `config.json`.
    evaluation : mapping, optional
        The contents of `evaluation.json`: `score`, `validation`, `calibration`, `subgroups`,
        `robustness`; `cohort` and `split` name the records of the evaluation.
    reliability, curves, measures : str, optional
        Files of the reliability diagram, of the curves of labels, and of the confusion matrix or
        the agreement of numbers, relative to the card.
    """
    model, values, evaluation = describe(config), flat(config), evaluation or {}
    score, cohort = evaluation.get("score"), model["cohort"]
    is_numeric = bool(score) and "agreement" in (score or {})
    areas = None if is_numeric else score
    tables_of_parts = tables.evaluation_tables(
        evaluation | ({"subgroups": None} if is_numeric else {}),
        len(score["per_label"]) if score else 0,
    )
    accuracy = config.get("lead_accuracy") or {}
    is_valid = bool(accuracy) and accuracy["digest"] == config.get("digest")
    simulated, seen = _use_of_simulated_ecgs(values, evaluation), leakage(config, evaluation)
    return _CARDS.get_template("card.md.j2").render(
        model=model,
        overview=overview(model, score, evaluation, leakage=seen, simulated=bool(simulated))
        if score
        else None,
        values=values,
        hub_licence=str(model["license"] or "unknown").lower(),
        simulated=simulated,
        is_ptbxl=cohort["name"] == "ptb-xl",
        evaluation=evaluation,
        leakage=seen,
        cohort=cohort_of(evaluation),
        score=score,
        policy_table=tables.policy_table(model["policy"]) if model["policy"] else None,
        form=kind_of((config.get("task") or {}).get("kind", Task.kind)).form,
        areas=areas,
        measure_tables=_measure_tables(evaluation),
        splits_table=tables.splits_table(evaluation) if areas else None,
        label_table=tables.labels_table(areas) if areas else None,
        measures=measures,
        reliability=reliability,
        curves=curves,
        answers_table=tables.answers_table(accuracy, len(model["labels"])) if is_valid else None,
        coverage_tables=coverage_tables(evaluation["coverage"])
        if evaluation.get("coverage")
        else [],
        robustness_table=robustness_table(evaluation, score),
        **tables_of_parts,
        **clinical_tables(evaluation),
    )


def _measure_tables(evaluation: Json) -> list[Table]:
    """The tables of classes, or of numbers; none for labels."""
    score = evaluation.get("score") or {}
    if "kind" not in score:
        return []
    split = "out of fold" if evaluation.get("folds") else evaluation.get("split") or "test"
    scores = {split: score}
    if evaluation.get("validation"):
        scores["validation"] = evaluation["validation"]
    level = confidence(score["level"])
    caption = f"Metrics, with {level} intervals of {tables.resamples_of(score)}."
    items = [measures_table(scores, caption)]
    if "confusion" in score:
        items += [classes_table(score), confusion_table(score)]
    elif subgroups := evaluation.get("subgroups"):
        items += value_subgroup_tables(subgroups)
    if calibration := evaluation.get("class_calibration"):
        items.append(class_calibration_table(calibration))
    return items


def _use_of_simulated_ecgs(values: Json, evaluation: Json) -> str:
    """`Trained` or `Evaluated`, of simulated ECGs; empty without any."""
    pretraining = [] if cohort_of(values)["name"] else values.get("pretraining") or []
    if cohort_of(values)["synthetic"] or any(stage.get("synthetic") for stage in pretraining):
        return "Trained"
    return "Evaluated" if cohort_of(evaluation)["synthetic"] else ""


def _finalize(value: Any) -> Any:
    """Escape whatever is not Markdown already; blanks at its ends are kept."""
    if value is None:
        return UNKNOWN
    if isinstance(value, Markup):
        return value
    line = str(value)
    before, after = line[: -len(line.lstrip())], line[len(line.rstrip()) :]
    return before + tables.escaped(line) + after


def _code(value: object) -> Markup:
    """A value that can stand between backticks."""
    return Markup(text(value).replace("`", "'").replace("\n", " "))


_CARDS = tables.templates(finalize=_finalize, keep_trailing_newline=True)
_CARDS.filters["code"] = _code
_CARDS.globals |= {"resamples_of": tables.resamples_of, "history_text": history_text}
