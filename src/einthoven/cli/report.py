"""Pages about results: report, card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from einthoven.cli.model_cohorts import (
    ModelTarget,
    ModelTask,
    cohort_of,
    scored_split,
    with_labels_of,
)
from einthoven.cli.options import (
    Device,
    ModelPath,
    Resamples,
    ResamplingUnit,
    ScoredSplit,
    Seed,
    Sidecar,
    StorePath,
    output_file,
    output_folder,
)
from einthoven.cli.progress import echo, progress_bars
from einthoven.errors import EvaluationError
from einthoven.files import RUN_FILE, check_output, read_json
from einthoven.models import CARD, is_model, model_path


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, the main one first.")],
    out: Annotated[Path, typer.Option(callback=output_file, help="The page to write.")] = Path(
        "report.html"
    ),
    reference: Annotated[
        Path | None, typer.Option(help="Run to compare the others with. Default: the last.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(help="Cohort, to draw example ECGs from.")] = None,
    sidecar: Sidecar = None,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=SHARE",
            help="Also state predictive values at this prevalence, such as AFIB=0.02. Repeatable.",
        ),
    ] = None,
    resamples: Resamples = 1000,
) -> None:
    """Write one self-contained HTML page: tables, differences, curves, examples and wrong calls.

    Beside it, a .json file has its numbers, and a .errors.csv file all wrong calls of the main run.

    With --cohort, example ECGs are drawn; with the extra `explain`, three have colours that show
    what speaks for and against the label.
    """
    from einthoven.cli.paths import full_cohort
    from einthoven.experiment.explanation import explainer
    from einthoven.report.page import write_report

    source = full_cohort(cohort, labels=()) if cohort else None  # only its paths are used
    page = write_report(
        runs,
        out,
        reference=reference,
        cohort=source,
        resamples=resamples,
        prevalence=_shares(prevalence or []),
        options=["--cohort", str(cohort)] if cohort else (),
        explain=explainer(runs[0]) if cohort else None,
    )
    echo(f"Report: {page}")


def _shares(texts: list[str]) -> dict[str, float]:
    """Shares by label, of texts such as `AFIB=0.02`."""
    shares = {}
    for text in texts:
        label, _, share = text.rpartition("=")
        try:
            shares[label] = float(share)
        except ValueError:
            raise EvaluationError(
                f"--prevalence {text}: {share!r} is not a number",
                remedy="write LABEL=SHARE, such as AFIB=0.02",
            ) from None
    return shares


def card(
    model: ModelPath,
    cohort: Annotated[
        Path | None,
        typer.Option(help="Labelled cohort to evaluate it on. Default: only print the card."),
    ] = None,
    task: ModelTask = None,
    target: ModelTarget = None,
    split: ScoredSplit = None,
    store: StorePath = None,
    sidecar: Sidecar = None,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=output_folder,
            help="Folder for README.md and evaluation.json. Default: the model folder, which must "
            "not have an evaluation on other records.",
        ),
    ] = None,
    robustness: Annotated[
        bool, typer.Option(help="Also predict with fewer leads, noise and offsets: 27 times.")
    ] = True,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    by: ResamplingUnit = "record",
    device: Device = "auto",
) -> None:
    """Print a model's card, or evaluate it: scores, calibration, subgroups, leads, noise.

    Without --cohort, prints the card of a model, a run, an ensemble, a pretrained encoder or
    converted weights: what it is, what it has been trained on, its results and its licence.

    With --cohort, writes README.md and evaluation.json, with all numbers, to the model folder, or
    to --out, so that results on another cohort do not replace those of the model's own run; its
    probabilities do not change. The accuracy with fewer leads, measured on the validation split, is
    stored in config.json: `einthoven predict` answers only the labels that keep theirs. `einthoven
    report` of the model's run shows the same numbers.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.experiment.evaluation import evaluate_model
    from einthoven.inference import device_of
    from einthoven.models import load_model

    if cohort is None:
        echo(_stored_card(model))
        return
    if out is None and model.is_dir():
        check_output(model, folder=True)
    loaded = load_model(model_folder(model))
    labelled, packed = cohort_of(loaded, cohort, task, store, target=target, some=True)
    labelled = with_labels_of(loaded, labelled)
    with progress_bars() as progress:
        page = evaluate_model(
            model,
            labelled,
            packed,
            split or scored_split(model, labelled, packed),
            out=out,
            robustness=robustness,
            resamples=resamples,
            seed=seed,
            by=by,
            device=device_of(device),
            progress=progress,
        )
    echo(f"Card: {page}")


def _stored_card(folder: Path) -> str:
    """The card in a model folder or run; a run without a model has one written from its run.json.

    Raises ModelError if the folder holds neither.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.report.card import model_card

    inner = folder / "model" if is_model(folder / "model") else folder
    if not is_model(inner) and (folder / RUN_FILE).is_file():
        return model_card(read_json(folder / RUN_FILE))
    return (model_path(model_folder(inner)) / CARD).read_text(encoding="utf-8")
