"""`docs/development.md`: its package is found by the command line and passes the contract tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from einthoven.backbones.registry import entry
from einthoven.errors import EinthovenError
from einthoven.extensions import import_extensions

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "development.md").read_text()
OTHERS = """
import numpy as np
from outside_objective import create

from einthoven.objectives import register_objective
from einthoven.records import STANDARD_LEADS, Format, Record, register_format


def read(file):
    return Record.from_array(np.loadtxt(file.name), rate=100, leads=STANDARD_LEADS, unit="mV")


register_objective("sample-prediction", create)
register_format(Format("text", (".ecgtxt",), read))
"""
COMMANDS = """
import json, sys
from einthoven.cli import main
from einthoven.stages.recipe import load_recipe

for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as end:
        if end.code:
            print(json.dumps({"status": end.code, "error": str(end.__context__)}))
recipe = load_recipe("post-training", backbone="patch_encoder")
print(json.dumps({"epochs": recipe.stage2.epochs, "extends": recipe.extends}))
"""


def declare(folder: Path, name: str, points: dict[str, str]) -> None:
    """Write what an installer writes about a package."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {module}" for key, module in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[einthoven]", *lines, ""]))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`python(*arguments)`: output of an interpreter that finds the packages."""
    folder = tmp_path_factory.mktemp("site")
    files = dict(re.findall(r"`([\w./-]+)`[^`\n]*:\n\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    declare(folder, project["name"], project["entry-points"]["einthoven"])
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    declare(folder, "others", {"others": "others"})
    (folder / "others.py").write_text(OTHERS)
    paths = [str(folder), str(REPOSITORY / "src"), str(REPOSITORY / "tests" / "extensions")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def run(*arguments: object) -> str:
        command = [sys.executable, *map(str, arguments)]
        options: dict[str, Any] = {"cwd": REPOSITORY, "env": environment, "text": True}
        done = subprocess.run(command, capture_output=True, check=False, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    return run


def test_the_command_line_finds_backbone_recipe_format_and_objective(
    python: Callable[..., str], synthetic_path: Path, tmp_path: Path
) -> None:
    rows = [[(i * lead) % 7 / 10 for i in range(1000)] for lead in range(12)]
    (tmp_path / "one.ecgtxt").write_text("\n".join(" ".join(map(str, row)) for row in rows))
    options = ["--out", str(tmp_path / "run"), "--set", "objective=sample-prediction"]
    commands = [
        ["backbones", "patch_encoder", "--json"],
        ["predict", str(tmp_path / "one.ecgtxt"), "--json"],
        ["pretrain", str(synthetic_path), "--backbone", "patch_encoder", *options],
    ]
    output = python("-c", COMMANDS, json.dumps(commands))
    known, predicted, refused, recipe = documents(output)
    assert (known["window_samples"], known["contains_ptbxl"]) == (1000, False)
    assert len(predicted["probabilities"]) > 1
    # The objective itself refuses a backbone without patches.
    assert (refused["status"], "no patches" in refused["error"]) == (1, True)
    assert recipe == {"epochs": 12, "extends": "st-mem/post-training"}


def documents(text: str) -> Iterator[Any]:
    """JSON objects among other lines."""
    decoder, place = json.JSONDecoder(), 0
    while (place := text.find("{", place)) >= 0:
        found, place = decoder.raw_decode(text, place)
        yield found


def test_it_passes_the_contract_tests(python: Callable[..., str]) -> None:
    command = re.search(r"^ {4}(pytest tests/contracts\S+ -k patch_encoder)$", PAGE, re.MULTILINE)
    assert command is not None
    output = python("-m", *command[1].split(), "-q", "-p", "no:cacheprovider")
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None
    assert int(passed[1]) >= 13


def test_an_extension_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(tmp_path, "broken-package", {"broken": "no_such_module"})
    import_extensions.cache_clear()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(EinthovenError, match="no_such_module") as refused:
            entry("s4")
    assert "broken-package" in refused.value.remedy
    assert entry("s4").name == "s4"
