"""Commands that explain predictions: explain, similar."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from einthoven.cli.options import AsJson, ModelArgument, StorePath, output_file
from einthoven.cli.progress import echo, note, output, progress_bars
from einthoven.errors import EvaluationError
from einthoven.report.format import counted

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.explain import Gallery
    from einthoven.inference import Embeddings, RecordPrediction
    from einthoven.models import Model
    from einthoven.records import Record
    from einthoven.report.explanation import Prediction

CohortOption = Annotated[
    Path | None,
    typer.Option(help="Cohort, as for `pack`, among whose records similar ones are looked for."),
]
EmbeddingsOption = Annotated[
    Path | None,
    typer.Option(
        help="Embeddings of the cohort by this model (`einthoven embed`). Default: a file in the "
        "cache folder, written when missing."
    ),
]
_SIMILAR = 5  # records on a page


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
    cohort: CohortOption = None,
    embeddings: EmbeddingsOption = None,
    store: StorePath = None,
) -> None:
    """Explain a prediction: a page with the ECG, coloured by what speaks for and against a label.

    Beside the page, NAME.json has its numbers. Methods: integrated-gradients (default), smoothgrad,
    occlusion-waves, occlusion-beats, occlusion-leads; grad-cam for convolutional networks;
    attention and attention-rollout for Transformers. Needs the extra `explain`.

    With --cohort, the page lists the most similar records of a cohort, and their labels.

    The page measures how faithful the colours are: see docs/explain.md.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.explain import DEFAULT, attribute, faithfulness, methods_of, shares_of
    from einthoven.inference import predict_record
    from einthoven.models import load_model
    from einthoven.records import read_record
    from einthoven.report.explanation import check_page, write_explanation

    check_page(out)
    if cohort is None and (embeddings or store):
        raise EvaluationError(
            "--embeddings and --store belong to a cohort", remedy="name it: --cohort COHORT"
        )
    loaded = load_model(model_folder(model))
    record = read_record(file)
    prediction = predict_record(loaded, record)
    target = label or _highest(loaded, prediction)
    attribution = attribute(loaded, record, target, method or DEFAULT)
    # A second method of another kind.
    kinds = ("smoothgrad", "occlusion-waves")
    suitable = [name for name in methods_of(loaded, record) if name in kinds]
    others = [name for name in suitable if name != attribution.method][:1]
    shares = shares_of(attribution, record)
    measured = faithfulness(loaded, record, attribution, others=others)
    nearest = (
        _neighbours(loaded, record, file, cohort, embeddings, store, _SIMILAR) if cohort else []
    )
    command = ["einthoven", "explain", model.name, file.name, "--label", target]
    command += ["--method", attribution.method, "--out", out.name]
    command += ["--cohort", cohort.name] if cohort else []
    page = write_explanation(
        out,
        _stated(loaded, prediction, target),
        record,
        attribution,
        shares,
        measured,
        similar=nearest,
        command=shlex.join(command),
    )
    for warning in prediction.warnings:
        note(f"Warning: {warning}", style="yellow")
    subject = "Evidence" if attribution.is_for_label else "Attention"
    echo(f"{subject} for {target}: {shares.in_words()} ({attribution.method})")
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


def similar(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ECG file.")],
    cohort: Annotated[
        Path, typer.Option(help="Cohort, as for `pack`: a data set, a table or a folder.")
    ],
    embeddings: EmbeddingsOption = None,
    store: StorePath = None,
    count: Annotated[int, typer.Option(min=1, help="Number of records.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Find the records of a cohort that are most similar to an ECG, and their labels.

    The distance is one minus the cosine of the embeddings by the model's backbone; the search is
    exact. Records of the same patient are left out where the file or the cohort tells.

    The cohort is embedded once, which takes some 15 ms a record; the file stays in the cache.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.models import load_model
    from einthoven.records import read_record

    loaded = load_model(model_folder(model))
    neighbours = _neighbours(loaded, read_record(file), file, cohort, embeddings, store, count)
    if as_json:
        echo(json.dumps({"record": str(file), "similar": neighbours}))
        return
    table = Table(
        "record",
        Column("distance", justify="right"),
        Column("labels", overflow="fold"),
        title=f"Records similar to {file}",
        title_justify="left",
    )
    for row in neighbours:
        table.add_row(row["record"], f"{row['distance']:.3f}", ", ".join(row["labels"]) or "none")
    output.print(table)


def _neighbours(
    model: Model,
    record: Record,
    file: Path,
    source: Path,
    embeddings: Path | None,
    store: Path | None,
    count: int,
) -> list[dict[str, Any]]:
    """The nearest records of a cohort: `record`, `distance` and `labels`."""
    import numpy as np

    from einthoven.inference import Embedder

    cohort, gallery = gallery_of(model, source, embeddings, store)
    patients = {record.patient} if record.patient else set()
    # Paths of WFDB records have no suffix.
    own = {file.resolve(), file.resolve().with_suffix("")}
    paths = [path.resolve() in own for path in cohort.paths()]
    patients |= set(cohort.patients()[np.array(paths)].tolist())
    without = np.isin(gallery.patients, list(patients))
    query = Embedder(model, "pooled", precision="fp32", device="cpu").embed(record)
    neighbours = gallery.nearest(query, count, without=without)
    rows = dict(zip(cohort.ids().tolist(), range(len(cohort)), strict=True))
    return [
        {
            "record": each.record,
            "distance": each.distance,
            "labels": labels_of(cohort, rows[each.record]),
        }
        for each in neighbours
    ]


def gallery_of(
    model: Model, source: Path, embeddings: Path | None, store: Path | None
) -> tuple[Cohort, Gallery]:
    """A cohort, and the embeddings of its records by a model; of those that have one."""
    from einthoven.explain import Gallery

    cohort = _with_shown_labels(model, source)
    stored = _embeddings_of(model, cohort, source, embeddings, store)
    return cohort, Gallery.of(stored.records, stored.patients, stored.vectors)


def _with_shown_labels(model: Model, source: Path) -> Cohort:
    """A cohort with its labels; of a table with other columns too, those of the model's targets."""
    from einthoven.cli.paths import full_cohort, labelled_cohort
    from einthoven.cohorts import layout_of, table
    from einthoven.errors import CohortError
    from einthoven.tasks.task import is_read_from

    try:
        return full_cohort(source)
    except CohortError:
        if layout_of(source) is not table.TABLE:
            raise
    task, columns = model.task.stated(), table.columns_of(source)
    wanted = tuple(task.target or model.labels)
    targets = tuple(name for name in wanted if is_read_from(name, columns))
    if targets == wanted:
        return labelled_cohort(source, replace(task, target=targets))
    if targets and task.kind == "multilabel":
        return full_cohort(source, labels=targets)
    cohort = full_cohort(source, labels=())
    note(f"{source} has no columns of the model's targets: its records are listed without labels")
    return cohort


def labels_of(cohort: Cohort, row: int) -> list[str]:
    """Labels that a record carries, or its numbers."""
    values = cohort.matrix[row].tolist()
    pairs = [(x, y) for x, y in zip(cohort.labels, values, strict=True) if y == y]
    if cohort.target.behaviour.form == "values":
        return [f"{label} {value:g}" for label, value in pairs]
    return [label for label, value in pairs if value]


def _embeddings_of(
    model: Model, cohort: Cohort, source: Path, file: Path | None, store: Path | None
) -> Embeddings:
    """Embeddings of a cohort, from a file or computed once; those of another model are refused."""
    from einthoven.cli.paths import cache, store_of
    from einthoven.inference import embed_cohort, read_embeddings

    weights = str(model.config.get("weights_sha256", ""))
    if file is None:
        key = f"{cohort.root.resolve()} {cohort.digest} {weights} {model.preparation.digest}"
        name = f"{cohort.name}-{sha256(key.encode()).hexdigest()[:12]}.parquet"
        file = cache() / "embeddings" / name
        if not file.is_file():
            packed = store_of(source, store, labels=(), leads=model.preparation.sources)
            file.parent.mkdir(parents=True, exist_ok=True)
            note(f"Embedding {counted(len(cohort), 'record')} into {file} (once)")
            with progress_bars() as progress:
                embed_cohort(model, cohort, packed, file, progress=progress)
    stored = read_embeddings(file)
    if stored.metadata.get("weights_sha256") != weights:
        raise EvaluationError(
            f"{file} has embeddings by another model",
            remedy="leave --embeddings out, or write them with this model: einthoven embed",
        )
    strangers = set(stored.records.tolist()) - set(cohort.ids().tolist())
    if strangers:
        raise EvaluationError(
            f"{file} has {len(strangers)} records that {source} lacks, such as {min(strangers)}",
            remedy="name the embeddings of this cohort",
        )
    return stored
