"""The option --sidecar: rate, unit and leads of array files on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from array_files import twelve_leads

from einthoven.cli.app import app
from einthoven.records import STANDARD_LEADS, read_record

Cli = Callable[..., Any]
OPTIONS = [
    f"--sidecar={text}" for text in ("rate=500", "unit=mV", f"leads={','.join(STANDARD_LEADS)}")
]
READS_FILES = (
    *("predict", "embed", "doctor", "pack", "convert-ecg", "posttrain", "search", "pretrain"),
    *("evaluate", "report", "card"),
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Table of two CSV files without a header."""
    for seed in (1, 2):
        np.savetxt(tmp_path / f"{seed}.csv", twelve_leads(5000, seed).T, fmt="%.4f", delimiter=",")
    (tmp_path / "table.csv").write_text("path,patient,MI\n1.csv,a,0\n2.csv,b,1\n")
    return tmp_path / "table.csv"


@pytest.mark.parametrize("verb", READS_FILES)
def test_every_verb_that_reads_files_has_it(verb: str) -> None:
    (command,) = (x for x in typer.main.get_group(app).commands.items() if x[0] == verb)
    assert "--sidecar" in {name for option in command[1].params for name in option.opts}


def test_a_file(cli: Cli, table: Path) -> None:
    file = table.with_name("1.csv")
    refused = cli("predict", file, status=1).err
    assert all(f"--sidecar {key}=" in refused for key in ("rate", "unit", "leads"))
    prediction = json.loads(cli("predict", file, "--json", *OPTIONS).out)
    assert prediction["record"] == str(file)
    assert "500 Hz" in cli("doctor", file, *OPTIONS).out
    cli("predict", file, "--json", status=1)  # the option ends with its command


def test_a_cohort(cli: Cli, table: Path, tmp_path: Path) -> None:
    sidecar = tmp_path / "export" / "any.toml"
    sidecar.parent.mkdir()
    sidecar.write_text('rate = 500\nunit = "mV"\n')
    options = ("--sidecar", sidecar, OPTIONS[-1])
    cli("pack", table, tmp_path / "store", status=1)
    assert "2 records" in cli("pack", table, tmp_path / "store", *options).out
    out = tmp_path / "predictions.csv"
    for _ in range(2):
        cli("predict", table, "--out", out, *options)
    cli("predict", table, "--out", out, *OPTIONS[1:], "--sidecar=rate=250", status=1)
    cli("convert-ecg", table, tmp_path / "wfdb", *options)
    assert read_record(tmp_path / "wfdb" / "1.hea").rate == 500
