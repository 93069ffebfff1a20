"""The command that draws a map of a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli.explain import labels_of
from einthoven.cli.options import one_of, output_file
from einthoven.cli.progress import echo, note
from einthoven.errors import EvaluationError
from einthoven.report.format import counted

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.inference import Embeddings
    from einthoven.report.map import Colouring

_FACTS = ("sex", "age", "device", "hospital")
_SHOWN_LABELS = 6
_MIN_SHARE = 0.005  # of the records, from which on a label of a default map is drawn


def map(
    embeddings: Annotated[
        list[Path],
        typer.Argument(
            metavar="EMBEDDINGS...",
            help="Pooled embeddings (`einthoven embed`); several files are several hospitals.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(callback=output_file, help="A page (.html) or a figure (.svg).")
    ],
    cohort: Annotated[
        list[Path] | None,
        typer.Option(
            help="Cohort of each file, in the same order, for labels, sex, age and device."
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Label to colour by. Repeatable. Default: the six most frequent."),
    ] = None,
    projection: Annotated[str, one_of("umap", "pca", help="Projection.")] = "umap",
    records: Annotated[
        int, typer.Option(min=3, help="Records on the map; of more, so many are drawn at random.")
    ] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw and of UMAP.")] = 0,
) -> None:
    """Draw a map of a cohort: embeddings in two dimensions, coloured by label, sex, age, hospital.

    The hospital is the cohort of a file. Of several labels a record has the colour of the rarest.

    The page needs no network, and shows the record under the pointer. UMAP needs the extra
    `explain`; it keeps neighbours together, and distances between groups mean nothing.
    """
    import numpy as np

    from einthoven.explain import project
    from einthoven.files import write_text
    from einthoven.inference import read_embeddings
    from einthoven.report.map import map_figure, map_page

    if out.suffix.lower() not in (".html", ".svg"):
        raise EvaluationError(f"{out} is no page or figure", remedy="end it in .html or .svg")
    if cohort and len(cohort) != len(embeddings):
        raise EvaluationError(
            f"{len(cohort)} cohorts for {len(embeddings)} files of embeddings",
            remedy="name --cohort once for each file, in the same order",
        )
    files = [read_embeddings(file) for file in embeddings]
    if len({file.metadata.get("weights_sha256") for file in files}) > 1:
        raise EvaluationError(
            "the files have embeddings by different models", remedy="embed all with one model"
        )
    hospitals = [
        str(file.metadata.get("cohort") or path.stem)
        for file, path in zip(files, embeddings, strict=True)
    ]
    columns = _columns(files, hospitals, cohort or [], label or [])
    vectors = np.concatenate([file.vectors for file in files])
    rows = np.arange(len(vectors))
    if len(vectors) > records:
        rows = np.sort(np.random.default_rng(seed).choice(len(vectors), records, replace=False))
        note(f"{records:,} of {len(vectors):,} records are drawn (--records)")
    points = project(vectors[rows], "pca" if projection == "pca" else "umap", seed=seed)
    colourings, details = _colourings(columns, rows)
    if out.suffix.lower() == ".svg":
        write_text(out, str(map_figure(points, colourings)))
    else:
        names = np.concatenate([file.records for file in files])[rows].tolist()
        about = {
            "model": files[0].metadata.get("backbone", ""),
            "projection": projection,
            "seed": seed,
        }
        title = f"Map of {' and '.join(dict.fromkeys(hospitals))}"
        page = map_page(points, names, colourings, title=title, details=details, about=about)
        write_text(out, page)
    echo(f"Map: {out} ({counted(len(points), 'record')}, {projection})")


def _columns(
    files: list[Embeddings], hospitals: list[str], cohorts: list[Path], labels: list[str]
) -> dict[str, list[Any]]:
    """Values of all records by column: `label` or numbers, the facts, and `labels` in words."""
    import numpy as np
    import pandas as pd

    from einthoven.cli.paths import full_cohort
    from einthoven.cohorts import layout_of
    from einthoven.cohorts.cohort import ABOVE_89

    tables = []
    for place, file in enumerate(files):
        table = pd.DataFrame(index=file.records)
        if len(files) > 1:
            table["hospital"] = hospitals[place]
        if cohorts:
            is_table = "labels" in layout_of(cohorts[place]).options
            opened = full_cohort(cohorts[place], labels=labels if labels and is_table else None)
            absent = [name for name in labels if name not in opened.labels]
            strangers = set(file.records.tolist()) - set(opened.ids().tolist())
            if absent or strangers:
                problem = f"{cohorts[place]} lacks record {min(strangers)}" if strangers else ""
                raise EvaluationError(
                    problem or f"{cohorts[place]} has no label {absent[0]}",
                    remedy="name the cohort that was embedded, and its labels",
                )
            shown = labels or _frequent(opened)
            rows = opened.table.index.get_indexer(pd.Index(file.records))
            targets = opened.matrix[rows][:, [opened.labels.index(name) for name in shown]]
            if opened.target.behaviour.form == "values":
                table[shown] = targets.astype(float)
            else:
                # Of several labels a record has the colour of the rarest.
                order = np.argsort(
                    np.nansum(opened.matrix, axis=0)[[opened.labels.index(name) for name in shown]]
                )
                has = np.nan_to_num(targets[:, order]) > 0
                table["label"] = np.array([*np.array(shown)[order], ""])[
                    np.where(has.any(axis=1), has.argmax(axis=1), len(shown))
                ]
                table["label"] = table["label"].replace("", None)
            extra = opened.metadata().iloc[rows]
            for name in set(_FACTS) & set(extra):
                table[name] = extra[name].to_numpy()
            table["labels"] = [", ".join(labels_of(opened, int(row))) for row in rows]
        elif labels:
            raise EvaluationError("--label without --cohort", remedy="name the cohort")
        tables.append(table)
    whole = pd.concat(tables)
    if "age" in whole:
        whole["age"] = whole["age"].mask(whole["age"] == ABOVE_89, 90.0)
    whole = whole.astype(object).where(whole.notna(), None)
    return {str(name): whole[name].tolist() for name in whole}


def _frequent(cohort: Cohort) -> list[str]:
    """The most frequent labels, or all numbers."""
    if cohort.target.behaviour.form == "values":
        return list(cohort.labels)
    counts = cohort.counts().sum(axis=1).sort_values(ascending=False)
    usual = counts[counts >= _MIN_SHARE * len(cohort)]
    return [str(name) for name in usual.index[:_SHOWN_LABELS]]


def _colourings(columns: dict[str, list[Any]], rows: Any) -> tuple[list[Colouring], list[str]]:
    """Colourings of some records, and a text about each of them.

    A fact that is not known of most records is in the text only.
    """
    from einthoven.report.map import Colouring

    texts = columns.pop("labels", None)
    parts = {name: [values[i] for i in rows] for name, values in columns.items()}
    order = sorted(parts, key=lambda name: _FACTS.index(name) if name in _FACTS else -1)
    colourings = []
    for name in order:
        stated = [value for value in parts[name] if value is not None]
        is_number = all(isinstance(value, float | int) for value in stated)
        is_rare = name in _FACTS and 2 * len(stated) < len(rows)
        if stated and not is_rare:
            colouring = Colouring(name, parts[name], "number" if is_number else "category")
            colourings.append(colouring)
    colourings = colourings or [Colouring("no cohort named", [None] * len(rows))]
    about = [name for name in _FACTS if name in parts]
    details = []
    for place, row in enumerate(rows):
        words = [texts[row] or "no label"] if texts else []
        words += [f"{name} {_plain(parts[name][place])}" for name in about]
        details.append("; ".join(words))
    return colourings, details


def _plain(value: Any) -> str:
    if value is None:
        return "not known"
    return f"{value:g}" if isinstance(value, float) else str(value)
