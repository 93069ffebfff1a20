"""Architecture: rooms import only from rooms above them, and light paths stay light."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import einthoven

PACKAGE = Path(einthoven.__file__).parent
ROOMS = (
    "lazy",
    "errors",
    "extensions",
    "progress",
    "files",
    "licences",
    "workers",
    "records",
    "tasks",
    "cohorts",
    "signals",
    "predictions",
    "evaluate",
    "explain",
    "report",
    "backbones",
    "models",
    "weights",
    "objectives",
    "training",
    "stages",
    "inference",
    "experiment",
    "reproduce",
    "doctor",
    "estimator",
    "serve",
    "cli",
    "__main__",
)
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def room_in(module: str) -> str:
    """Room of a module of einthoven; empty for other modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "einthoven" and len(parts) > 1 else ""


def imports(tree: ast.Module, *, typing_only: bool = False) -> Iterator[tuple[int, str]]:
    """Line and module of every import, also within functions.

    Imports under `if TYPE_CHECKING` are left out unless `typing_only`: they never run.
    """
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped |= {id(inner) for child in node.body for inner in ast.walk(child)}
    for node in ast.walk(tree):
        if id(node) in skipped and not typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full"
            module = node.module or ""
            if module == "einthoven":
                yield from ((node.lineno, f"einthoven.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def test_every_room_has_its_place() -> None:
    found = {room_of(file) for file in FILES} - {"__init__"}
    assert found == set(ROOMS)


def test_rooms_import_downwards_only() -> None:
    """The package's `__init__` is exempt: it imports each name when it is first used."""
    upwards = []
    for file in FILES:
        if room_of(file) == "__init__":
            continue
        above = set(ROOMS[ROOMS.index(room_of(file)) + 1 :])
        for line, module in imports(ast.parse(file.read_text())):
            if room_in(module) in above:
                upwards.append(f"{file.relative_to(PACKAGE)}:{line} imports {module}")
    assert not upwards


def test_the_rule_would_notice_a_way_up() -> None:
    source = "def f():\n    from einthoven.stages.probe import probe\n"
    assert list(imports(ast.parse(source))) == [(2, "einthoven.stages.probe")]
    typed = "if TYPE_CHECKING:\n    from einthoven import cli\n"
    assert list(imports(ast.parse(typed))) == []
    assert list(imports(ast.parse(typed), typing_only=True)) == [(2, "einthoven.cli")]


def test_remedies_of_the_library_name_arguments_not_options() -> None:
    """The command line turns `folds=5` into --folds 5; a whole command may have options."""
    found = []
    for file in FILES:
        if room_of(file) in {"cli", "serve", "reproduce"}:
            continue
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and any(x.arg == "remedy" for x in call.keywords):
                parts = [x.value for x in ast.walk(call) if isinstance(x, ast.Constant)]
                text = " ".join(part for part in parts if isinstance(part, str))
                is_option = re.search(r"(?<![\w-])--[a-z]", text)
                if is_option and not re.search(r"einthoven [a-z ]", text):
                    found.append(f"{file.relative_to(PACKAGE)}:{call.lineno} {text[-60:]}")
    assert not found


def test_evaluation_and_report_never_see_a_model() -> None:
    """Not even for annotations."""
    for file in FILES:
        if room_of(file) in {"evaluate", "report", "predictions"}:
            rooms = {
                room_in(module)
                for _, module in imports(ast.parse(file.read_text()), typing_only=True)
            }
            assert not rooms & {"backbones", "weights", "training", "stages", "models"}, file


def test_files_have_a_docstring_and_a_telling_name() -> None:
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text())), file
        assert file.stem not in {"utils", "util", "helpers", "misc", "common"}, file


def test_commands_print_in_one_way() -> None:
    """Through `cli.progress`, which escapes control characters.

    `cli/__init__.py` prints one text without names before anything else is imported.
    """
    others = {"print", "typer.echo", "typer.secho", "click.echo", "rich.print"}
    others |= {"sys.stdout.write", "sys.stderr.write"}
    for file in (PACKAGE / "cli").glob("*.py"):
        if file.stem in {"__init__", "progress"}:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in others, f"{file.name}:{node.lineno} calls {name}"
                assert not name.endswith("Console"), f"{file.name}:{node.lineno} makes a {name}"


def test_tests_match_values_and_names_not_phrases() -> None:
    """No pattern has three words in a row; a placeholder of an f-string ends a row."""
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "match":
                parts = [p.value for p in ast.walk(node.value) if isinstance(p, ast.Constant)]
                text = "{}".join(map(str, parts))
                assert not re.search(r"[A-Za-z]+ [a-z]+ [a-z]+", text), f"{file}: {text}"


def loaded(statement: str) -> set[str]:
    """Modules and top-level packages in a fresh interpreter after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    return {*done} | {name.split(".")[0] for name in done}


def test_importing_the_package_is_light() -> None:
    heavy = {"torch", "numpy", "pandas", "scipy", "sklearn", "pydantic", "rich", "typer"}
    heavy |= {"matplotlib", "huggingface_hub"}
    assert not loaded("import einthoven") & heavy


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    statement = "from einthoven.cli.app import app"
    assert not loaded(statement) & {"torch", "numpy", "pandas", "scipy", "matplotlib"}


def test_the_prediction_path_holds_no_training_code() -> None:
    found = loaded(
        "import einthoven.models.folder, einthoven.cohorts; "
        "from einthoven.inference import Predictor, with_leads"
    )
    rooms = {room_in(name) for name in found}
    assert not rooms & {"training", "stages", "objectives", "experiment", "evaluate", "report"}
    assert not found & {"accelerate", "matplotlib", "wfdb", "sklearn", "typer"}
    assert not found & {"pandas", "pyarrow", "scipy.signal", "scipy.stats"}


def test_every_public_name_resolves() -> None:
    assert sorted(einthoven.__all__) == dir(einthoven)
    for name in einthoven.__all__:
        assert getattr(einthoven, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = einthoven.nonsense


def packages_with_names() -> Iterator[str]:
    """The package, and its packages and top-level modules that declare public names."""
    for file in (*PACKAGE.glob("*.py"), *PACKAGE.glob("*/**/__init__.py")):
        if "\n__all__ = " in file.read_text():
            parts = file.relative_to(PACKAGE).with_suffix("").parts
            yield ".".join(["einthoven", *(part for part in parts if part != "__init__")])


@pytest.mark.parametrize("name", sorted(set(packages_with_names())))
def test_dir_shows_the_public_names_only(name: str) -> None:
    if name == "einthoven.serve":  # an extra
        pytest.importorskip("fastapi")
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, each) for each in dir(module))
