"""What a path on the command line refers to: a model, or a cohort and its store."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven.cli.progress import note, progress_bars
from einthoven.errors import CohortError, FileError, ModelError
from einthoven.files import CONFIG_FILE, STORE_FILE
from einthoven.models import SHIPPED, is_model
from einthoven.records import STANDARD_LEADS
from einthoven.report.format import counted

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.signals.store import Store
    from einthoven.tasks import Task
    from einthoven.training.distributed import Processes

_SUGGESTIONS = 3


# ---------------------------------------------------------------------- models


def model_folder(path: Path) -> Path:
    """Check that a path is a model folder, or the name of the included model.

    Raises ModelError if it is neither; the remedy lists model folders nearby.
    """
    if path == Path(SHIPPED) or is_model(path):
        return path
    reason = f"{CONFIG_FILE} is missing" if path.exists() else "no such folder"
    places = {path / "model", *path.parent.glob("*"), *path.parent.parent.glob("*/model")}
    models = [str(place) for place in sorted(places) if (place / CONFIG_FILE).is_file()]
    near = get_close_matches(str(path), models, n=_SUGGESTIONS, cutoff=0.0)
    raise ModelError(
        f"{path} is not a model folder: {reason}",
        remedy=f"name a model, such as {' or '.join([*near, SHIPPED])}",
    )


def model_to_predict(path: Path, runtime: str) -> Path:
    """Model folder or exported file of a model for a runtime: auto, torch or onnx.

    Raises ModelError if the model is not there in the form that the runtime needs.
    """
    from einthoven.models.onnx_model import SUFFIX, is_onnx

    if is_onnx(path):
        if runtime == "torch":
            raise ModelError(
                f"{path} is an exported model, which PyTorch does not run",
                remedy="name the model folder, or leave out --runtime",
            )
        return path
    folder = model_folder(path)
    if runtime != "onnx":
        return folder
    exported = folder / f"model{SUFFIX}"
    if not exported.is_file():
        raise ModelError(
            f"{exported} is missing",
            remedy=f"einthoven export {path} --out model.onnx, and "
            "--model model.onnx; in a model folder, a file of that name is found",
        )
    return exported


# ---------------------------------------------------------------------- cohorts


def stated_task(
    task: str | None,
    *,
    kind: str | None = None,
    target: Sequence[str] | None = None,
    unit: Sequence[str] | None = None,
) -> Task | str | None:
    """What is predicted, by the options of a command: a name of PTB-XL, a file, or columns.

    Raises CohortError if the options contradict each other.
    """
    from einthoven.tasks import Task

    if not (kind or target or unit):
        return Task.load(task) if task and Path(task).suffix == ".toml" else task
    if task:
        raise CohortError(
            "--task says what is predicted, and so do --kind, --target and --unit",
            remedy="leave out the one or the others",
        )
    return Task(kind=kind or Task.kind, target=tuple(target or ()), unit=tuple(unit or ()))


def labelled_cohort(path: Path, task: Task | str | None = None, *, min_records: int = 0) -> Cohort:
    """Open a cohort with the targets of a task; default: all-71, or a table's label columns.

    Raises CohortError if it has no labels, or an option applies to another kind of cohort.
    """
    cohort = _open(path, task=task, min_records=min_records)
    if not cohort.labels:
        from einthoven.cohorts import without_labels

        raise without_labels(cohort, path)
    return cohort


def full_cohort(
    path: Path,
    *,
    labels: Sequence[str] | None = None,
    rate: int | None = None,
    warn: bool = False,
) -> Cohort:
    """Open a cohort with all its records, with or without labels; no labels with `labels=()`.

    `warn` prints warnings about patients, ages, dates and the like, for a command in which they
    matter and that has not printed them yet. Raises CohortError if an option applies to another
    kind of cohort.
    """
    from einthoven.cohorts import layout_of
    from einthoven.cohorts.cohort import CohortWarning

    empty_rows = "keep" if "empty_rows" in layout_of(path).options else None
    with warnings.catch_warnings():
        if not warn:
            warnings.simplefilter("ignore", CohortWarning)
        return _open(path, labels=labels, rate=rate, empty_rows=empty_rows)


def _open(
    path: Path,
    *,
    task: Task | str | None = None,
    labels: Sequence[str] | None = None,
    rate: int | None = None,
    **options: Any,
) -> Cohort:
    from einthoven.cohorts import layout_of, open_cohort
    from einthoven.cohorts.statements import STATEMENTS
    from einthoven.tasks import Task

    layout = layout_of(path)
    is_columns = isinstance(task, Task) and task.kind == Task.kind
    if (labels or is_columns) and "labels" not in layout.options:
        raise CohortError(
            f"--target without --kind applies only to tables; {path} is a {layout.name}",
            remedy="leave it out; --task chooses the labels of a data set",
        )
    if isinstance(task, str) and task != STATEMENTS and "labels" in layout.options:
        raise CohortError(
            f"--task {task} does not apply to {path}: {layout.name}",
            remedy="name a .toml file, or columns of the table: --kind and --target",
        )
    for name, value in {"task": task, "rate": rate}.items():
        if value not in (None, STATEMENTS) and name not in layout.options:
            raise CohortError(
                f"--{name} does not apply to {path}: {layout.name}",
                remedy="leave it out; --target NAME chooses columns of a table",
            )
    options |= {"task": task, "labels": labels, "rate": rate}
    selected = {key: value for key, value in options.items() if value}
    if labels == () and "labels" in layout.options:
        selected["labels"] = ()
    return open_cohort(path, **selected)


def refuse_inside(out: Path, cohort: Path) -> None:
    """Raise CohortError if a run folder lies in the folder of a cohort, among its files."""
    if cohort.is_dir() and out.resolve().is_relative_to(cohort.resolve()):
        raise CohortError(f"{out} lies in the cohort {cohort}", remedy="choose a folder outside it")


# ---------------------------------------------------------------------- stores


def store_of(
    path: Path,
    store: Path | None,
    *,
    labels: Sequence[str] | None = None,
    leads: Sequence[str] = STANDARD_LEADS,
) -> Store:
    """Open the cohort's store, or pack it: in `store`, or in the cache folder.

    It has twelve leads, or those that a network needs, `leads`, if the records lack others. Raises
    StoreError if it holds other recordings than the cohort.
    """
    from einthoven.signals.pack import check_sources, leads_to_pack, pack
    from einthoven.signals.store import Store

    if store is not None and (store / STORE_FILE).is_file():
        existing = Store.open(store)
        check_sources(existing, path if path.is_dir() else path.parent)
        return existing
    cohort = full_cohort(path, labels=labels)
    whole, suspects = _cached(cohort), None
    if (whole / STORE_FILE).is_file():
        suspects = Store.open(whole).quarantine["record"].tolist()
    leads = leads_to_pack(cohort, leads, suspects)
    folder = store or _cached(cohort, leads)
    if (folder / STORE_FILE).is_file():
        note(f"Packed signals: {folder}")
        return pack(cohort, folder, leads=leads)  # opens it, and checks that it is the cohort's
    note(f"Packing {counted(len(cohort), 'record')} into {folder} (once)")
    try:
        with progress_bars() as progress:
            packed = pack(cohort, folder, leads=leads, progress=progress)
    except FileError as error:
        remedy = f"{error.remedy}: --store FOLDER, or the cache in $EINTHOVEN_CACHE"
        raise FileError(error.problem, remedy=error.remedy if store else remedy) from error
    report_packing(packed)
    return packed


def shared_store(
    path: Path,
    store: Path | None,
    processes: Processes,
    *,
    labels: Sequence[str] | None = None,
    leads: Sequence[str] = STANDARD_LEADS,
) -> Store:
    """`store_of` for processes that train together: the main one packs, the others wait."""
    if not processes.is_main:
        processes.wait()
    packed = store_of(path, store, labels=labels, leads=leads)
    if processes.is_main:
        processes.wait()
    return packed


def store_folder(path: Path, store: Path | None) -> Path:
    """Folder where the cohort's store is, or would be packed."""
    return store or _cached(full_cohort(path))


def _cached(cohort: Cohort, leads: Sequence[str] = STANDARD_LEADS) -> Path:
    from einthoven.records.sidecar import description
    from einthoven.signals.pack import records_digest

    # The folder is part of the key: two hospitals may number their files alike.
    key = f"{cohort.root.resolve()} {records_digest(cohort)}"
    if (sidecar := description()) is not None:
        key += f" {sidecar}"
    if tuple(leads) != STANDARD_LEADS:
        key += f" {','.join(leads)}"
    return cache() / "stores" / f"{cohort.name}-{sha256(key.encode()).hexdigest()[:12]}"


def report_packing(store: Store) -> None:
    """Print how many records could not be packed, and why the first; and how many are doubtful."""
    from einthoven.errors import listed
    from einthoven.signals.pack import DERIVED, ROUNDED, excluded

    if len(store.quarantine):
        first = store.quarantine.iloc[0]
        note(
            f"Warning: {counted(len(store.quarantine), 'record')} in quarantine and left out "
            f"({store.root}/quarantine.csv), such as {first['record']}: {first['reason']}",
            style="yellow",
        )
    if counts := excluded(store):
        texts = [f"{name} in {count}" for name, count in counts.items()]
        note(f"Left out by --exclude: {listed(texts)}")
    noted = store.noted().items()
    doubts = {kind: names for kind, names in noted if kind not in (ROUNDED, DERIVED)}
    if doubts:
        count = len({name for names in doubts.values() for name in names})
        kinds = listed([f"{kind} in {len(names)}" for kind, names in doubts.items()])
        note(
            f"Warning: {counted(count, 'record')} with doubts: {kinds} (einthoven doctor "
            f"{store.root})",
            style="yellow",
        )


def cache() -> Path:
    """The cache folder: `$EINTHOVEN_CACHE`, or `~/.cache/einthoven`."""
    folder = os.environ.get("EINTHOVEN_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "einthoven"
