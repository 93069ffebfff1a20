"""Which store belongs to a cohort; packed on first use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven.cli.progress import console, progress_bar
from einthoven.errors import CohortError

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.signals.store import Store
    from einthoven.training.distributed import Processes


def check_typed(
    path: str | Path,
    *,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    rate: int | None = None,
) -> None:
    """Refuse options that are of the other kind of cohort, and would change nothing.

    Raises
    ------
    CohortError
        For `--label` of a folder, or `--task` or `--rate` of anything but PTB-XL's folder.
    """
    from einthoven.cohorts.ptbxl import is_ptbxl_layout

    if Path(path).is_dir() and labels:
        raise CohortError(
            f"--label names a column of an own table, and {path} is a folder",
            remedy="leave it out; PTB-XL's labels are those of its task",
        )
    for name, value in {"--task": task, "--rate": rate}.items():
        if value is not None and Path(path).exists() and not is_ptbxl_layout(Path(path)):
            raise CohortError(
                f"{name} is of PTB-XL's folder, which {path} is not",
                remedy="leave it out; --label NAME takes some of a table's label columns",
            )


def labelled(
    path: str | Path,
    task: str | None,
    *,
    labels: Sequence[str] | None = None,
    min_records: int = 0,
) -> Cohort:
    """The cohort of a task, all-71 without one, or an own table with all or some of its label
    columns.

    Raises
    ------
    CohortError
        When it has no labels.
    """
    from einthoven.cohorts import open_cohort

    options: dict[str, Any] = {"min_records": min_records} if min_records else {}
    if labels and not Path(path).is_dir():
        options["labels"] = labels
    cohort = open_cohort(path, task or "all-71", **options)
    if not cohort.labels:
        raise CohortError(
            f"{path} has no labels", remedy="name a table with one column of 0 and 1 a label"
        )
    return cohort


def every_record(path: str | Path, **options: Any) -> Cohort:
    """Open a cohort with all its records, including those without a label of any task."""
    from einthoven.cohorts import open_cohort
    from einthoven.cohorts.ptbxl import is_ptbxl_layout

    if is_ptbxl_layout(Path(path)):
        options = {"empty_rows": "keep"} | {k: v for k, v in options.items() if k != "labels"}
    return open_cohort(path, **{key: value for key, value in options.items() if value})


def store_of(path: str | Path, store: Path | None, **options: Any) -> Store:
    """The cohort's store: the one named, or one in the cache folder, packed when it is not there.

    The cache is `$EINTHOVEN_CACHE`, or `~/.cache/einthoven`.

    Raises
    ------
    StoreError
        When it holds other recordings than the cohort's folder.
    """
    from einthoven.signals.pack import check_sources, pack
    from einthoven.signals.store import Store

    if store is not None and (store / "store.json").is_file():
        found = Store.open(store)
        check_sources(found, Path(path) if Path(path).is_dir() else Path(path).parent)
        return found
    cohort = every_record(path, **options)
    folder = store or _cached(cohort)
    if (folder / "store.json").is_file():
        return pack(cohort, folder)  # opens it, or says that it is another cohort's
    console.print(f"Packing {len(cohort)} records into {folder} (once)")
    with progress_bar("pack") as progress:
        packed = pack(cohort, folder, progress=progress)
    tell_quarantine(packed)
    return packed


def store_folder(path: str | Path, store: Path | None) -> Path:
    """Where the cohort's store is, or would be packed; nothing is packed."""
    return store or _cached(every_record(path))


def _cached(cohort: Cohort) -> Path:
    from einthoven.signals.pack import records_digest

    # The folder too: two hospitals may number their files alike.
    said = f"{cohort.root.resolve()} {records_digest(cohort)}"
    return cache() / "stores" / f"{cohort.name}-{sha256(said.encode()).hexdigest()[:12]}"


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


def tell_quarantine(store: Store) -> None:
    """Say how many records could not be packed, and why the first one could not."""
    if len(store.quarantine):
        first = store.quarantine.iloc[0]
        console.print(
            f"[yellow]{len(store.quarantine)} records are in quarantine and left out "
            f"({store.root}/quarantine.csv); the first, {first['record']}: {first['reason']}",
            markup=True,
            highlight=False,
        )


def cache() -> Path:
    """The cache folder."""
    named = os.environ.get("EINTHOVEN_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "einthoven"
