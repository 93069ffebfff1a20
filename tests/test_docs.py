"""README and docs: commands and options that they name exist, links lead there, the code runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from links import dead_links

from einthoven.backbones.registry import create_backbone
from einthoven.cli.app import app
from einthoven.files import write_tensors
from einthoven.signals.store import Store

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def commands(text: str) -> Iterator[list[str]]:
    """Words of every command, verb first: those of indented lines, and those between backticks."""
    whole = text.replace("\\\n", " ")
    shown = re.findall(r"^ {4,}(?:\S+ )*?(?:-m )?einthoven ([a-z][^#\n]*)", whole, re.MULTILINE)
    named = re.findall(r"`einthoven ([a-z][^`]*)`", whole)
    yield from (shlex.split(command) for command in (*shown, *named))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    for verb, *words in commands(page.read_text()):
        assert verb in COMMANDS, f"einthoven {verb}"
        known = {
            name for each in COMMANDS[verb].params for name in (*each.opts, *each.secondary_opts)
        }
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help"}, f"einthoven {verb} has no {used - known}"


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "docs" / "networks").glob("*.md"))], ids=lambda page: page.name
)
def test_links_and_anchors_exist(page: Path) -> None:
    assert not dead_links(page.read_text(), page)


def test_a_stale_command_and_a_dead_link_would_be_found() -> None:
    text = "    einthoven gone a --old=1 # why\n    torchrun -m einthoven pack a \\\n        --x\n"
    text += "and `einthoven b`"
    assert list(commands(text)) == [["gone", "a", "--old=1"], ["pack", "a", "--x"], ["b"]]
    page = "[a](backbones.md#missing-leads) [b](backbones.md#gone) [c](gone.md) [d](https://e.org)"
    assert dead_links(page, PAGES[1]) == ["backbones.md#gone", "gone.md"]


def test_every_verb_is_on_some_page() -> None:
    named = {verb for page in PAGES for verb, *_ in commands(page.read_text())}
    assert named == set(COMMANDS)


def run_python(code: str, replacements: dict[str, object], names: dict[str, Any]) -> None:
    """Run the code of a page with the paths of this machine."""
    for written, here in replacements.items():
        assert written in code
        code = code.replace(written, str(here))
    exec(compile(code, "page", "exec"), names)


def test_the_readme_s_python_runs(
    synthetic_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    network = create_backbone("st_mem_tiny", seed=0)
    write_tensors(tmp_path / "encoder", network.state_dict(), {"backbone": "st_mem_tiny"})
    replacements = {
        "data/ptb-xl": synthetic_path,
        "my_ecg.hea": synthetic_path / "records100/00000/00007_lr.hea",
        "st_mem_base": "st_mem_tiny",
        "st_mem_vit_base_encoder.pth": "encoder",
    }
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, (60, 71))
    names: dict[str, Any] = {"targets": targets, "probabilities": random.random((60, 71))}
    run_python(code, replacements, names)
    assert names["crops"].shape == (3, 12, 2250)
    low, high = names["score"].macro_auroc_interval
    assert low < names["score"].macro_auroc < high


def test_predictions_in_python_run(synthetic_path: Path, synthetic_store: Store) -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    (code,) = re.findall(r"```python\n(from [^`]* import predict_cohort[^`]*)```", page)
    code = 'import einthoven\nmodel = einthoven.load_model("runs/post-training/model")\n' + code
    replacements = {
        "runs/post-training/model": "einthoven-small",
        "data/ptb-xl.store": synthetic_store.root,
        "data/ptb-xl": synthetic_path,
    }
    names: dict[str, Any] = {}
    run_python(code, replacements, names)
    assert names["table"].metadata["calibrated"] == "yes"
