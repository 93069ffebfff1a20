"""Commands for data: synthesize, download, convert-ecg, label, pack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Column, Table

from einthoven.cli.options import Labels, Sidecar, lead_names, one_of, output_file, output_folder
from einthoven.cli.progress import echo, note, output, progress_bars
from einthoven.report.format import counted, percent

_FREQUENT = 8  # phrases without a label that are printed


def synthesize(
    dest: Annotated[
        Path, typer.Argument(callback=output_folder, help="Folder to write; must not exist.")
    ],
    records: Annotated[int, typer.Option(min=1, help="Number of ECGs.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same files.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Write simulated 12-lead ECGs with statements, in PTB-XL's layout.

    The ECGs come from a dipole model of the heart. They serve for trials and tests; a model
    trained on them is not valid for patients.
    """
    from einthoven.cohorts.synthetic import synthesize

    with progress_bars() as progress:
        synthesize(dest, records=records, seed=seed, workers=workers, progress=progress)
    echo(f"{counted(records, 'simulated ECG')} in {dest}")


def download(
    dataset: Annotated[str, typer.Argument(help="Name of the data set: ptb-xl.")],
    dest: Annotated[
        Path,
        typer.Argument(callback=output_folder, help="Folder; an interrupted download is resumed."),
    ],
    rate: Annotated[
        str, one_of("100", "500", "both", help="Sampling rate of the records, Hz.")
    ] = "100",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Simultaneous connections.")] = 8,
    mirror: Annotated[
        str | None, typer.Option(help="URL of another server with the same files.")
    ] = None,
) -> None:
    """Download a public data set and verify each file by the publisher's SHA-256 sum."""
    from einthoven.cohorts.download import download

    with progress_bars() as progress:
        transferred = download(
            dataset,
            dest,
            base_url=mirror,
            workers=workers,
            rate=rate,  # type: ignore[arg-type]  # one of its values
            progress=progress,
        )
    echo(f"{dataset} is complete in {dest}; {transferred} files transferred")


def convert_ecg(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="ECG files and folders, or a table."),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            callback=output_folder, metavar="OUT", help="Folder to write; new or empty."
        ),
    ],
    sidecar: Sidecar = None,
    to: Annotated[str, one_of("wfdb", "dicom", "csv", help="Format to write.")] = "wfdb",
    anonymise: Annotated[
        bool,
        typer.Option(
            "--anonymise",
            help="Leave out names, identifiers, dates, devices and texts; number records and "
            "patients in random order.",
        ),
    ] = False,
    mapping: Annotated[
        Path | None,
        typer.Option(
            callback=output_file,
            help="With --anonymise: a .csv file for the numbers. Keep it apart.",
        ),
    ] = None,
) -> None:
    """Convert ECG files of any format to WFDB, DICOM or CSV, and verify them by reading.

        einthoven convert-ecg export/ ecgs --to wfdb

    OUT holds a file for each record, and `ecgs.csv`, a table for the other commands. WFDB and DICOM
    hold 16 bits in the step in which the signal was digitised; if it has none, samples are rounded,
    and that is said. CSV holds millivolts, with rate, unit and leads in a `.toml` file beside it.

    A file that cannot be used is left out and listed in OUT.refused.csv; the exit status is then 1.
    """
    from einthoven.cohorts.convert import TABLE, convert

    with progress_bars() as progress:
        result = convert(
            sources, out, to=to, anonymise=anonymise, mapping=mapping, progress=progress
        )
    echo(f"{counted(result.converted, 'record')} in {out}; table: {out / TABLE}")
    if result.rounded:
        note(
            f"{counted(result.rounded, 'record')} rounded by at most {result.step / 2:g} uV: no "
            "step of 16 bits fits"
        )
    if result.unknown_codes:
        note(f"{counted(result.unknown_codes, 'unknown code')} left out of Dx")
    if result.binary_columns:
        note(
            f"Columns of 0 and 1 kept in {TABLE}; remove those whose name is a person's: "
            f"{', '.join(result.binary_columns)}"
        )
    if result.dropped:
        note(f"Columns left out of {TABLE}: {', '.join(result.dropped)}")
    if result.refused:
        note(f"{counted(result.refused, 'record')} refused: {result.refused_file}", style="yellow")
        raise typer.Exit(1)


def label(
    reports: Annotated[
        Path, typer.Argument(help="Table with a report a row: .csv, UTF-8, or .parquet.")
    ],
    out: Annotated[
        Path, typer.Option(callback=output_file, help="Table of labels to write, .csv.")
    ],
    patterns: Annotated[
        str,
        typer.Option(help="Pattern file: ecg-fm, scp-english, ptb-xl, or a .toml file."),
    ] = "scp-english",
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the report. Default: report_0, report_1, ..., else report or text. "
            "Repeatable.",
        ),
    ] = None,
    uncertain: Annotated[
        str | None,
        typer.Option(
            metavar="[positive|unknown|negative]",
            help="What 'possible', 'cannot rule out', ... count as; unknown leaves the cell empty. "
            "Default: that of the pattern file.",
        ),
    ] = None,
) -> None:
    """Label ECGs by the text of their reports, with a file of patterns.

        einthoven label reports.csv --patterns mine.toml --out labels.csv

    A pattern file names the phrases of each label; cues of negation and uncertainty come with the
    language:

        extends = "english"

        [labels.AFIB]

        patterns = ['atrial fibrillation', 'a-?fib']

    The table OUT has 1, 0 or an empty cell (not known) for each label, beside path, patient, split
    and the like, as `posttrain` reads it. Beside it, OUT.phrases.csv has the phrase that fired for
    each label of each record, and OUT.unmatched.csv the phrases without a label, most frequent
    first: read them, add patterns, and repeat the command. docs/labels.md has the rest.
    """
    from einthoven.cohorts.report_labels import label_reports, read_reports
    from einthoven.cohorts.report_patterns import load_patterns

    rules = load_patterns(patterns)
    result = label_reports(read_reports(reports), rules, columns=text or (), uncertain=uncertain)
    written = result.write(out, reports)
    table = Table(
        "label", *(Column(str(name), justify="right") for name in result.counts), box=SIMPLE
    )
    mentioned = result.counts[result.counts.any(axis=1)]
    for name, row in mentioned.iterrows():
        table.add_row(str(name), *(f"{value:,}" for value in row))
    output.print(table)
    if silent := len(result.counts) - len(mentioned):
        echo(f"{counted(silent, 'label')} in no report")
    empty = len(result.table) - result.texts
    echo(
        f"{counted(result.texts, 'report')}; {result.without_match:,} "
        f"({percent(result.without_match / result.texts)}) without any label"
        + (f"; {counted(empty, 'record')} without a report, labels not known" if empty else "")
    )
    if len(result.unmatched):
        frequent = result.unmatched.head(_FREQUENT).itertuples(index=False)
        echo("Most frequent phrases without a label: ", nl=False)
        echo("; ".join(f"{phrase} ({records:,})" for phrase, records in frequent))
    echo("Written: " + ", ".join(str(file) for file in written))
    if missing := [name for name in ("path", "patient") if name not in result.table]:
        note(f"posttrain also needs the columns {', '.join(missing)}", style="yellow")


def pack(
    source: Annotated[
        Path, typer.Argument(help="Folder of a data set, a label table, or a folder of ECG files.")
    ],
    store: Annotated[Path, typer.Argument(help="Folder to write; unfinished packing is resumed.")],
    leads: Annotated[
        str | None, typer.Option(help="Leads to keep, such as I,II,V2. Default: all twelve.")
    ] = None,
    rate: Annotated[int | None, typer.Option(help="PTB-XL: 100 or 500 Hz recordings.")] = None,
    labels: Labels = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Also leave out records with this finding, such as flat (a constant lead) or "
            "lead-off; repeatable. docs/data.md lists them."
        ),
    ] = None,
    sidecar: Sidecar = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one for each processor.")
    ] = None,
) -> None:
    """Read and verify every record once, into a store that training reads from.

    A missing, damaged or flat record, or one with missing samples, is listed in the store's
    quarantine.csv with the reason; the others are packed. Records with doubts, such as limb leads
    that do not fit each other, are counted; `einthoven doctor STORE` lists them. Patients, ages or
    dates that look wrong, and recordings under several names, are named.
    """
    from einthoven.cli.paths import full_cohort, report_packing
    from einthoven.doctor import duplicates
    from einthoven.records import STANDARD_LEADS
    from einthoven.signals.pack import pack
    from einthoven.signals.store import store_amplitude

    names = STANDARD_LEADS if leads is None else lead_names(leads)
    cohort = full_cohort(source, rate=rate, labels=labels, warn=True)
    with progress_bars() as progress:
        packed = pack(
            cohort, store, leads=names, exclude=exclude or (), workers=workers, progress=progress
        )
    report_packing(packed)
    for finding in (store_amplitude(packed), duplicates(packed)):
        if finding is not None:
            note(f"Warning: {finding.text}", style="yellow")
    echo(f"{counted(len(packed), 'record')} in {store}")
