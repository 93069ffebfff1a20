"""How numbers, paragraphs and commands are written."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from einthoven.reproduce.evidence import Gap, Pooled
from einthoven.reproduce.experiment_files import load_experiment
from einthoven.reproduce.folders import Request
from einthoven.reproduce.published import Value
from einthoven.reproduce.wording import command, gain, gap, paragraph, published, value


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """Data below the working folder, all else elsewhere."""
    monkeypatch.chdir(tmp_path)
    return Request(
        load_experiment("s4-100hz-cpu"), "s4_small", tmp_path / "data", Path("data.store"),
        Path("/home/me/out"), Path("/a b/encoder.pth"),
        against=(Path("/home/me/one"), Path("two")),
    )  # fmt: skip


def test_values_and_differences() -> None:
    one = Pooled((0,), (0.5,), ((0.4, 0.6),), 0.5, None, (0.4, 0.6), 0.0)
    two = replace(one, seeds=(0, 1), spread=0.01, interval=(-0.4, 0.6))
    assert value(one) == "0.5000 (0.4000 to 0.6000)"
    assert gain(two) == "+0.5000 ± 0.0100 (−0.4000 to +0.6000)"
    assert gap(Gap(-0.01, (-0.02, 0.0), (0, 1), (0,))) == "−0.0100 (−0.0200 to 0.0000)"
    assert value(None) == gain(None) == gap(None) == "not run yet"


def test_published_values() -> None:
    assert published(Value(0.925, thousandths=8)) == "0.925(08)"
    assert published(Value(0.898, (0.888, 0.907))) == "0.898 (0.888 to 0.907)"
    assert published(Value(0.93)) == "0.930"
    assert published(None) == "–"


def test_lines_of_a_paragraph() -> None:
    lines = paragraph("word " * 18 + "at the end of a line 95 % of it").splitlines()
    assert not any(line.startswith("%") for line in lines)
    assert max(map(len, lines)) <= 100


def test_a_page_s_command_names_no_folder_outside_of_the_working_one(request_: Request) -> None:
    """Pages are published; where their maker keeps things is not."""
    assert shlex.split(command(request_, "table-1", "--only", "row=plain fine-tuning")) == [
        "einthoven", "reproduce", "table-1", "--cohort", "data", "--store", "data.store",
        "--backbone", "s4_small", "--weights", "ENCODER", "--experiment", "s4-100hz-cpu",
        "--out", "OUT", "--against", "RUN", "--against", "two",
        "--only", "row=plain fine-tuning",
    ]  # fmt: skip


def test_the_exact_command_can_be_typed_again(request_: Request) -> None:
    words = shlex.split(command(request_, "table-1", exact=True))
    assert words[words.index("--weights") + 1] == "/a b/encoder.pth"
    assert words[words.index("--out") + 1] == "/home/me/out"
    assert words[words.index("--against") + 1] == "/home/me/one"
    assert words[words.index("--cohort") + 1] == "data"


def test_an_experiment_s_own_file(request_: Request, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('name = "own"\nextends = "s4-100hz-cpu"\n')
    here = replace(request_, experiment=load_experiment("own.toml"), weights=None, against=())
    assert "--experiment own.toml" in command(here, "grid")
    assert "--weights" not in command(here, "grid")
    away = here.experiment.model_copy(update={"asked": "/home/me/own.toml"})
    assert "--experiment EXPERIMENT.toml" in command(replace(here, experiment=away), "grid")
    no_name = replace(here, backbone="")
    assert "--backbone" not in command(no_name, "grid")
