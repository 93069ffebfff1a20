"""Commands that explain a model: explain."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.options import output_file
from einthoven.cli.progress import echo, note, shown_warnings

if TYPE_CHECKING:
    from einthoven.inference import RecordPrediction
    from einthoven.models import Model
    from einthoven.report.explanation import Prediction

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model folder, or einthoven-small.")
]


def explain(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ECG file.")],
    out: Annotated[Path, typer.Option(callback=output_file, help="The page, an .html file.")],
    label: Annotated[
        str | None,
        typer.Option(help="Label, class or number. Default: the most probable one that is called."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Method of attribution; the page names its limits.")
    ] = None,
) -> None:
    """Explain a prediction: a page with the ECG, coloured by what speaks for and against a label.

    Beside the page, NAME.json has its numbers. Methods: integrated-gradients (default), smoothgrad,
    occlusion-waves, occlusion-beats, occlusion-leads; grad-cam for convolutional networks;
    attention and attention-rollout for Transformers. Needs the extra `explain`.

    The page measures how faithful the colours are: see docs/explain.md.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.explain import DEFAULT, attribute, faithfulness, shares_of
    from einthoven.inference import predict_record
    from einthoven.models import load_model
    from einthoven.records import read_record
    from einthoven.report.explanation import write_explanation

    with shown_warnings():
        loaded = load_model(model_folder(model))
    record = read_record(file)
    prediction = predict_record(loaded, record)
    chosen = label or _highest(loaded, prediction)
    attribution = attribute(loaded, record, chosen, method or DEFAULT)
    others = [name for name in ("smoothgrad",) if name != attribution.method]
    shares = shares_of(attribution, record)
    measured = faithfulness(loaded, record, attribution, others=others)
    command = ["einthoven", "explain", model.name, file.name, "--label", chosen]
    command += ["--method", attribution.method, "--out", out.name]
    page = write_explanation(
        out,
        _stated(loaded, prediction, chosen),
        record,
        attribution,
        shares,
        measured,
        command=shlex.join(command),
    )
    for warning in prediction.warnings:
        note(f"Warning: {warning}", style="yellow")
    subject = "Evidence" if attribution.is_for_label else "Attention"
    echo(f"{subject} for {chosen}: {shares.in_words()} ({attribution.method})")
    echo(f"Page: {page}")


def _highest(model: Model, prediction: RecordPrediction) -> str:
    """The most probable label that is called, or the most probable one if none is."""
    if prediction.above_threshold:
        return prediction.above_threshold[0]
    outputs = prediction.probabilities or prediction.values
    return max(outputs, key=lambda name: outputs[name])


def _stated(model: Model, prediction: RecordPrediction, label: str) -> Prediction:
    """What the page states about the prediction of a label."""
    from einthoven.report.explanation import Prediction

    is_probability = not prediction.values
    outputs = prediction.probabilities if is_probability else prediction.values
    return Prediction(
        model=model.name,
        digest=str(model.config.get("digest", "")),
        label=label,
        meaning=model.descriptions.get(label, ""),
        value=outputs[label],
        unit=prediction.units.get(label, ""),
        threshold=(prediction.thresholds or {}).get(label),
        warnings=prediction.warnings,
        is_probability=is_probability,
    )
