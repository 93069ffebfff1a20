"""Verbs that bring data: synthesize, download, pack."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from einthoven.cli.options import Labels, lead_names
from einthoven.cli.progress import progress_bar


class Rate(StrEnum):
    """Which recordings of PTB-XL to fetch."""

    low = "100"
    high = "500"
    both = "both"


def synthesize(
    dest: Annotated[Path, typer.Argument(help="Folder to write; it must not exist yet.")],
    records: Annotated[int, typer.Option(min=1, help="Number of ECGs.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same files.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Write a simulated cohort in PTB-XL's layout: physiological 12-lead ECGs with statements.

    The ECGs come from a dipole model of the heart. They are for trying things out and for tests;
    a model trained on them knows nothing about patients.
    """
    from einthoven.cohorts.synthetic import synthesize as write

    with progress_bar("synthesize") as progress:
        write(dest, records=records, seed=seed, workers=workers, progress=progress)
    typer.echo(f"{records} simulated ECGs in {dest}")


def download(
    dataset: Annotated[str, typer.Argument(help="Name of the data set: ptb-xl.")],
    dest: Annotated[Path, typer.Argument(help="Folder; a run that was stopped goes on.")],
    rate: Annotated[Rate, typer.Option(help="Sampling rate of the records, Hz.")] = Rate.low,
    workers: Annotated[int, typer.Option(min=1, help="Connections at a time.")] = 8,
    mirror: Annotated[str | None, typer.Option(help="Another server with the same files.")] = None,
) -> None:
    """Fetch a public data set, verified file by file against the publisher's SHA-256 sums."""
    from einthoven.cohorts.download import download as fetch

    with progress_bar(f"download {dataset}") as progress:
        done = fetch(
            dataset,
            dest,
            base_url=mirror,
            workers=workers,
            rate=rate.value,
            progress=progress,
        )
    typer.echo(f"{done.files} files in {done.folder}, {done.downloaded} of them new")


def pack(
    source: Annotated[
        Path, typer.Argument(help="PTB-XL's folder, a label table, or a folder of WFDB records.")
    ],
    store: Annotated[Path, typer.Argument(help="Folder to write; an unfinished one goes on.")],
    leads: Annotated[
        str | None, typer.Option(help="Leads to keep, such as I,II,V2; all twelve by default.")
    ] = None,
    rate: Annotated[
        int | None, typer.Option(help="PTB-XL: the 100 or the 500 Hz recordings.")
    ] = None,
    labels: Labels = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a processor by default.")
    ] = None,
) -> None:
    """Read and verify every record once, into a store that training reads from.

    A record that is missing, damaged or flat goes to the store's quarantine.csv with the reason;
    it never stops the others.
    """
    from einthoven.cli.stores import check_typed, every_record, tell_quarantine
    from einthoven.records import STANDARD_LEADS
    from einthoven.signals.pack import pack as write

    check_typed(source, labels=labels, rate=rate)
    cohort = every_record(source, rate=rate, labels=labels)
    chosen = lead_names(leads) if leads else STANDARD_LEADS
    with progress_bar("pack") as progress:
        packed = write(cohort, store, leads=chosen, workers=workers, progress=progress)
    tell_quarantine(packed)
    typer.echo(f"{len(packed)} records in {store}")
