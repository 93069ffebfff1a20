"""The committed pages of `docs/networks/` say what code and results say."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from einthoven.backbones.registry import backbone_names

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """`docs/pages/generate.py`, imported as it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "pages")
        return importlib.import_module("generate")


@pytest.fixture(scope="module")
def pages(generate: ModuleType) -> dict[str, str]:
    found: dict[str, str] = generate.pages()
    return found


def test_the_committed_pages_are_up_to_date(generate: ModuleType, pages: dict[str, str]) -> None:
    assert not generate.out_of_date(pages), "run `make docs`"


def test_every_network_has_a_page_and_a_line(pages: dict[str, str]) -> None:
    assert pages.keys() == {"README.md"} | {f"{name}.md" for name in backbone_names()}
    for name in backbone_names():
        assert f"[`{name}`]({name}.md)" in pages["README.md"]


def test_pages_tell_what_a_user_needs(pages: dict[str, str]) -> None:
    wanted = ("| paper |", "| parameters |", "| input |", "| public weights |", "## From Python")
    for name, text in pages.items():
        if name != "README.md":
            assert all(each in text for each in wanted), name
            assert "its own policy holds" not in text, f"{name}: name its policy in inspection.py"
    # Three that are easily got wrong: a leak, a licence, a published row.
    assert "**yes**: results on PTB-XL are not those of an unseen cohort" in pages["ecg_fm.md"]
    assert "CC BY-NC 4.0" in pages["st_mem_base.md"]
    assert "0.925(07)" in pages["xresnet1d101.md"]
    assert "1,880,775" in pages["xresnet1d101.md"]


def test_links_lead_somewhere(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert (DOCS / "networks" / link).resolve().is_file() or link in pages, (name, link)


@pytest.mark.parametrize("name", ["fcn_wang", "s4_tiny", "st_mem_tiny"])
def test_examples_run_and_give_the_shape_that_they_name(name: str, pages: dict[str, str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", pages[f"{name}.md"], flags=re.DOTALL)
    lines = example.replace("torch.zeros(8,", "torch.zeros(2,").splitlines()
    shaped = next(line for line in lines if ".shape" in line)
    said = re.search(r"\(8, (\d+)\)", shaped)
    assert said is not None
    lines[lines.index(shaped)] = f"shape = {shaped}"
    names: dict[str, object] = {}
    with torch.no_grad():
        exec("\n".join(lines), names)
    assert names["shape"] == (2, int(said.group(1)))


def test_docstrings_become_markdown() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "pages")
        network = importlib.import_module("network")
    text = (
        'One.\n\nPart\n----\n``x="y"`` is a literal.\n\nTerm\n    its\n    meaning.\nOther\n    b.'
    )
    said = network.as_markdown(text)
    assert "### Part" in said
    assert "`x=" in said
    assert "* *Term*:\n  its\n  meaning." in said
    assert "* *Other*:\n  b." in said


def test_numbers_are_found_in_groups_and_in_rows_of_table_1() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "pages")
        results = importlib.import_module("results")
    value = {"mean": 0.9, "interval": [0.8, 1.0], "seeds": [0]}
    group = {"backbone": "a", "arm": "x", "task": "all-71", "auroc": value, "auprc": value}
    row = {
        "backbone": "b", "arm": "y", "short_schedule": "20 of 50 epochs",
        "tasks": {"all-71": {"auroc": value, "auprc": value}, "form-19": {"auroc": None}},
    }  # fmt: skip
    found = list(results.finished({"groups": [group, group | {"auroc": None}], "rows": [row]}))
    assert [(each["backbone"], each["task"]) for each in found] == [
        ("a", "all-71"),
        ("b", "all-71"),
    ]
    assert found[1]["short_schedule"] == "20 of 50 epochs"


def test_check_says_what_is_stale_and_changes_nothing(tmp_path: Path) -> None:
    script = DOCS / "pages" / "generate.py"
    code = (
        f"import sys; sys.path.insert(0, {str(script.parent)!r}); sys.argv = ['x', '--check']\n"
        "import generate; from pathlib import Path\n"
        f"generate.FOLDER = Path({str(tmp_path)!r}); generate.pages = lambda: {{'a.md': 'A'}}\n"
        "generate.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "out of date: a.md" in done.stderr
    assert not list(tmp_path.iterdir())
