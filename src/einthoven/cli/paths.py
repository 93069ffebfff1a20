"""What a path on the command line refers to: a model, a cohort and its store, or an ECG file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven.cli.progress import note, progress_bars
from einthoven.errors import CohortError, EvaluationError, ModelError
from einthoven.models import CONFIG, SHIPPED, is_model
from einthoven.report.format import counted

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.signals.store import Store
    from einthoven.training.distributed import Processes

TABLES = (".csv", ".parquet")
_SUGGESTIONS = 3


# ---------------------------------------------------------------------- models and ECG files


def model_folder(path: Path) -> Path:
    """Check that a path is a model folder, or the name of the included model.

    Raises
    ------
    ModelError
        If it is neither; the remedy lists model folders nearby.
    """
    if path == Path(SHIPPED) or is_model(path):
        return path
    reason = f"{CONFIG} is missing" if path.exists() else "no such folder"
    places = {path / "model", *path.parent.glob("*"), *path.parent.parent.glob("*/model")}
    models = [str(place) for place in sorted(places) if (place / CONFIG).is_file()]
    near = get_close_matches(str(path), models, n=_SUGGESTIONS, cutoff=0.0)
    raise ModelError(
        f"{path} is not a model folder: {reason}",
        remedy=f"name a model, such as {' or '.join([*near, SHIPPED])}",
    )


def is_cohort(path: Path) -> bool:
    """Whether a path is a cohort: a folder or a table, not a record's name without suffix."""
    is_record_name = path.with_name(f"{path.name}.hea").is_file()
    return (path.is_dir() and not is_record_name) or path.suffix in TABLES


def ecg_file(path: Path) -> Path:
    """Check that a path is not a cohort.

    Raises
    ------
    CohortError
        If it is one.
    """
    if not is_cohort(path):
        return path
    raise CohortError(
        f"{path} is a cohort; this command reads ECG files",
        remedy="name ECG files; for cohorts, use `einthoven embed`, or `einthoven evaluate "
        f"--model MODEL --cohort {path}`",
    )


def check_sources(sources: Sequence[Path]) -> None:
    """Check that the sources of embeddings are one cohort or several ECG files.

    Raises
    ------
    EvaluationError
        If a cohort is one of several sources.
    """
    cohorts = [source for source in sources if is_cohort(source)]
    if cohorts and len(sources) > 1:
        raise EvaluationError(
            f"{cohorts[0]} is a cohort, and one of {len(sources)} sources",
            remedy="embed one cohort at a time, or ECG files only",
        )


# ---------------------------------------------------------------------- cohorts


def check_cohort_options(
    path: str | Path,
    *,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    rate: int | None = None,
) -> None:
    """Refuse options that do not apply to this kind of cohort.

    Raises
    ------
    CohortError
        If `--label` is used with a folder, or `--task` or `--rate` without PTB-XL's folder.
    """
    from einthoven.cohorts.ptbxl import is_ptbxl_layout

    if Path(path).is_dir() and labels:
        raise CohortError(
            f"--label applies only to tables; {path} is a folder",
            remedy="leave it out; --task chooses labels of PTB-XL",
        )
    for name, value in {"--task": task, "--rate": rate}.items():
        if value is not None and Path(path).exists() and not is_ptbxl_layout(Path(path)):
            raise CohortError(
                f"{name} applies only to PTB-XL's folder; {path} is not one",
                remedy="leave it out; --label NAME chooses label columns of a table",
            )


def labelled_cohort(
    path: str | Path,
    task: str | None,
    *,
    labels: Sequence[str] | None = None,
    min_records: int = 0,
) -> Cohort:
    """Open a cohort with the labels of a task (default all-71), or with a table's label columns.

    Raises
    ------
    CohortError
        If it has no labels.
    """
    from einthoven.cohorts import open_cohort

    options: dict[str, Any] = {"min_records": min_records} if min_records else {}
    if labels and not Path(path).is_dir():
        options["labels"] = labels
    cohort = open_cohort(path, task or "all-71", **options)
    if not cohort.labels:
        raise CohortError(
            f"{path} has no labels", remedy="name a table with a column of 0 and 1 for each label"
        )
    return cohort


def full_cohort(path: str | Path, **options: Any) -> Cohort:
    """Open a cohort with all its records, with or without labels."""
    from einthoven.cohorts import open_cohort
    from einthoven.cohorts.ptbxl import is_ptbxl_layout

    if Path(path).is_dir():
        options.pop("labels", None)
        if is_ptbxl_layout(Path(path)):
            options["empty_rows"] = "keep"
    return open_cohort(path, **{key: value for key, value in options.items() if value})


# ---------------------------------------------------------------------- stores


def store_of(path: str | Path, store: Path | None, **options: Any) -> Store:
    """Open the cohort's store, or pack it: in `store`, or in the cache folder.

    Raises
    ------
    StoreError
        If it holds other recordings than the cohort.
    """
    from einthoven.signals.pack import check_sources, pack
    from einthoven.signals.store import Store

    if store is not None and (store / "store.json").is_file():
        existing = Store.open(store)
        check_sources(existing, Path(path) if Path(path).is_dir() else Path(path).parent)
        return existing
    cohort = full_cohort(path, **options)
    folder = store or _cached(cohort)
    if (folder / "store.json").is_file():
        return pack(cohort, folder)  # opens it, and checks that it belongs to the cohort
    note(f"Packing {counted(len(cohort), 'record')} into {folder} (once)")
    with progress_bars() as progress:
        packed = pack(cohort, folder, progress=progress)
    report_quarantine(packed)
    return packed


def shared_store(
    path: str | Path, store: Path | None, processes: Processes, **options: Any
) -> Store:
    """`store_of` for processes that train together: the main one packs, the others wait."""
    if not processes.is_main:
        processes.wait()
    packed = store_of(path, store, **options)
    if processes.is_main:
        processes.wait()
    return packed


def store_folder(path: str | Path, store: Path | None) -> Path:
    """Folder where the cohort's store is, or would be packed."""
    return store or _cached(full_cohort(path))


def _cached(cohort: Cohort) -> Path:
    from einthoven.signals.pack import records_digest

    # The folder is part of the key: two hospitals may number their files alike.
    key = f"{cohort.root.resolve()} {records_digest(cohort)}"
    return cache() / "stores" / f"{cohort.name}-{sha256(key.encode()).hexdigest()[:12]}"


def report_quarantine(store: Store) -> None:
    """Print how many records could not be packed, and the reason of the first."""
    if len(store.quarantine):
        first = store.quarantine.iloc[0]
        note(
            f"Warning: {counted(len(store.quarantine), 'record')} in quarantine and left out "
            f"({store.root}/quarantine.csv), such as {first['record']}: {first['reason']}",
            style="yellow",
        )


def cache() -> Path:
    """The cache folder: `$EINTHOVEN_CACHE`, or `~/.cache/einthoven`."""
    folder = os.environ.get("EINTHOVEN_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "einthoven"
