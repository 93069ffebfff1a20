"""The generated pages list every network, and their commands and examples work."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import torch
import typer
from links import dead_links

from einthoven.backbones.registry import backbone_names, entry
from einthoven.cli.app import app

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    file = DOCS / "pages" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_network_pages", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(importlib.sys.modules, spec.name, module)  # type: ignore[attr-defined]
        spec.loader.exec_module(module)
        found: dict[str, str] = module.pages()
    return found


def test_every_network_has_a_page_and_a_line(pages: dict[str, str]) -> None:
    names = [*backbone_names(), "ensemble"]
    assert pages.keys() == {"README.md"} | {f"{name}.md" for name in names}
    assert {file.name for file in (DOCS / "networks").glob("*.md")} == pages.keys()
    for name in names:
        assert f"[`{name}`]({name}.md)" in pages["README.md"]


def test_pages_state_size_and_licence(pages: dict[str, str]) -> None:
    for name in backbone_names():
        known = entry(name)
        assert f"{known.parameters:,}" in pages[f"{name}.md"]
        assert known.licence is None or str(known.licence) in pages[f"{name}.md"]
        assert ("**yes**" in pages[f"{name}.md"]) == (known.contains_ptbxl is True)


def test_commands_parse(pages: dict[str, str]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, page in pages.items():
        joined = page.replace("\\\n", " ")
        for verb, rest in re.findall(r"^ {4}einthoven (\w+) (.*)", joined, re.MULTILINE):
            options = {option for known in commands[verb].params for option in known.opts}
            assert {word for word in shlex.split(rest) if word.startswith("--")} <= options, name


def test_links_and_anchors_exist(pages: dict[str, str]) -> None:
    assert "../backbones.md#missing-leads" in pages["s4.md"]
    for name, text in pages.items():
        assert not dead_links(text, DOCS / "networks" / name), name


@pytest.mark.parametrize("name", ["fcn_wang", "s4_tiny", "wavelet_nn"])
def test_examples_run(name: str, pages: dict[str, str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", pages[f"{name}.md"], flags=re.DOTALL)
    names: dict[str, object] = {}
    with torch.no_grad():
        exec(example.replace("(8,", "(2,", 2), names)
    assert isinstance(names["classifier"], torch.nn.Module)
