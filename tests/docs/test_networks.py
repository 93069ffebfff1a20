"""The committed pages of `docs/networks/` say what code and results say."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

from einthoven.backbones.registry import backbone_names, catalogue
from einthoven.cli.app import app
from einthoven.reproduce.experiment import load_experiment
from einthoven.reproduce.grid import Run, only, row_names, runs_of
from einthoven.stages.recipe import load_recipe

PEERS = {name: known for name, known in catalogue().items() if known.is_supervised}
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """`docs/pages/generate.py`, imported as it is run."""
    return _part("generate")


def _part(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "pages")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def pages(generate: ModuleType) -> dict[str, str]:
    found: dict[str, str] = generate.pages()
    return found


def test_the_committed_pages_are_up_to_date(generate: ModuleType, pages: dict[str, str]) -> None:
    assert not generate.out_of_date(pages), "run `make docs`"


def test_every_network_has_a_page_and_a_line(pages: dict[str, str]) -> None:
    named = [*backbone_names(), "ensemble"]
    assert pages.keys() == {"README.md"} | {f"{name}.md" for name in named}
    for name in named:
        assert f"[`{name}`]({name}.md)" in pages["README.md"]


def test_pages_tell_what_a_user_needs(pages: dict[str, str]) -> None:
    wanted = ("| paper |", "| parameters |", "| input |", "| public weights |", "## From Python")
    for name, text in pages.items():
        if name not in ("README.md", "ensemble.md"):
            assert all(each in text for each in wanted), name
            assert "its own policy holds" not in text, f"{name}: set missing_leads in its entry"
    # Three that are easily got wrong: a leak, a licence, a published row.
    assert "**yes**: results on PTB-XL are not those of an unseen cohort" in pages["ecg_fm.md"]
    assert "CC BY-NC 4.0" in pages["st_mem_base.md"]
    assert "0.925(07)" in pages["xresnet1d101.md"]
    assert "1,880,775" in pages["xresnet1d101.md"]
    # Those of table 1, whose network is not causal.
    assert (
        "with `causal=false`, as `s4-100hz-cpu` trains it, 367,872 and 395,207"
        in (pages["s4_small.md"])
    )


def _lines(page: str, first: str) -> list[str]:
    """Cells of a table's line."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return [run.strip() for run in line.strip("|").split("|")]


def _group(
    variant: str, mean: float, *, seeds: tuple[int, ...] = (0,), **more: Any
) -> dict[str, Any]:
    value = {"mean": mean, "interval": [mean - 0.01, mean + 0.01], "seeds": list(seeds)}
    found = {
        "backbone": "s4_small",
        "variant": variant,
        "task": "all-71",
        "experiment": "s4-100hz-cpu",
    }
    return found | {"auroc": value, "auprc": value} | more


def test_the_index_shows_a_recipe_by_rule_and_never_the_best_on_fold_10(
    generate: ModuleType, pages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of several is too high (docs/protocol.md, choices)."""
    assert "chosen by rule and not by result" in " ".join(pages["README.md"].split())
    found = [
        _group("without-probe", 0.99),
        _group("post-training", 0.93, seeds=(0, 1, 2)),
        _group("fine-tuning", 0.98, seeds=(0, 1, 2)),
        _group("post-training", 0.97) | {"task": "form-19"},
    ]
    network = generate.Network.named("s4_small")
    monkeypatch.setattr(generate, "results", lambda name: found)
    shown = generate.index_line(network)[-1]
    assert shown == "0.9300 (`s4-100hz-cpu/post-training`, seeds 0, 1, 2)"
    monkeypatch.setattr(generate, "results", lambda name: found[:1])
    monkeypatch.setattr(generate, "sections_about", lambda name: [])
    assert generate.index_line(network)[-1] == "not run yet"


def test_of_several_experiments_the_recipe_as_it_is_goes_first() -> None:
    results = _part("results")
    peer = {"backbone": "lstm", "experiment": "peers-cpu"}
    cpu = _group("strodthoff-rnn", 0.95, **peer, changes=["precision bf16 instead of fp32"])
    short = _group("strodthoff-rnn", 0.96, **peer, changes=[], short_schedule="20 of 50 epochs")
    whole = _group("strodthoff-rnn", 0.9, **peer | {"experiment": "peers"}, changes=[])
    for found in ([cpu, short, whole], [whole, short, cpu]):
        assert results.chosen(found, "strodthoff-rnn", "all-71") is whole
    more = _group("strodthoff-rnn", 0.8, seeds=(0, 1), **peer | {"experiment": "peers"}, changes=[])
    assert results.chosen([whole, more], "strodthoff-rnn", "all-71") is more
    assert results.chosen([whole], "strodthoff", "all-71") is None
    both = cpu | {"changes": [*cpu["changes"]], "short_schedule": "10 of 50 epochs"}
    for found in ([both, cpu], [cpu, both]):
        assert results.chosen(found, "strodthoff-rnn", "all-71") is cpu


def test_what_was_changed_of_a_recipe_stands_beside_the_number() -> None:
    measured = _part("measured")
    told = ["precision bf16 instead of fp32"]
    found = {"backbone": "fcn_wang", "experiment": "peers-cpu"}
    said = measured.named(_group("strodthoff", 0.9, **found, changes=told))
    assert said == "`strodthoff`, precision bf16 instead of fp32"
    short = measured.named(_group("strodthoff", 0.9, **found, changes=[], short_schedule="2 of 3"))
    assert short == "`strodthoff`, 2 of 3"
    # Numbers of earlier versions do not say so; the experiment does.
    assert measured.named(_group("strodthoff", 0.9, **found)) == said
    assert measured.named(_group("without-probe", 0.9)) == "`without-probe`, without stage1"
    assert measured.named(_group("a", 0.9, **found | {"experiment": "my-own"})) == "`a`"


def test_an_arm_that_changes_a_recipe_is_not_called_one(pages: dict[str, str]) -> None:
    text = " ".join(pages["s4_small.md"].split())
    assert re.search(r"`large-head`, [^.]*`without-probe`[^.]* are variants of", text)
    assert "[`src/einthoven/reproduce/experiments/s4-100hz-cpu.toml`]" in text
    assert _lines(pages["s4_small.md"], "all-71 | `s4-100hz-cpu/post-training`")


def _reproductions(page: str) -> list[list[str]]:
    whole = page.replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^ {4}einthoven (reproduce .*)", whole, re.M)]


def _runs(words: list[str], without: tuple[str, ...] = ()) -> list[Run]:
    """What a command of `einthoven reproduce` would run."""
    given = dict(pairwise(words))
    filters = [value for option, value in pairwise(words) if option == "--only"]
    filters = [each for each in filters if not each.startswith(without)] if without else filters
    experiment, backbone = load_experiment(given["--experiment"]), given.get("--backbone", "")
    return only(runs_of(words[1], experiment, backbone), filters, row_names(experiment, backbone))


def test_every_command_exists_and_a_reproduction_runs_what_the_page_says(
    pages: dict[str, str],
) -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, page in pages.items():
        whole = page.replace("\\\n", " ")
        for verb, rest in re.findall(r"^ {4}einthoven (\w+) (.*)", whole, re.MULTILINE):
            options = {option for each in known[verb].params for option in each.opts}
            assert {word for word in shlex.split(rest) if word.startswith("--")} <= options, name
        said = re.search(r"This is (one|\d+) trainings?;.*? it is (\d+)", " ".join(page.split()))
        if said:
            (words,) = _reproductions(page)
            assert len(_runs(words)) == (1 if said[1] == "one" else int(said[1])), name
            assert len(_runs(words, without=("task=", "seed="))) == int(said[2]), name


@pytest.mark.parametrize("name", ["fcn_wang", "wavelet_nn"])
def test_the_command_under_a_number_makes_that_number(name: str, pages: dict[str, str]) -> None:
    found = _part("results").results(name)
    made = {}
    for words in _reproductions(pages[f"{name}.md"]):
        runs = {(run.backbone, run.variant, run.task, run.seed) for run in _runs(words)}
        made[words[words.index("--experiment") + 1]] = runs
    assert set(made) == {each["experiment"] for each in found}
    for each in found:
        seeds = each["auroc"]["seeds"]
        assert made[each["experiment"]] >= {
            (name, each["variant"], each["task"], seed) for seed in seeds
        }


def test_a_peer_s_recipe_is_its_row_s(generate: ModuleType) -> None:
    for name, about in PEERS.items():
        row = generate.Network.named(name).row
        assert row is not None, f"{name} is in no experiment"
        assert load_experiment("peers").variants[row.variant].recipe == about.recipe


def test_the_ensemble_s_page_has_members_rule_and_published_value(pages: dict[str, str]) -> None:
    page = pages["ensemble.md"]
    for row in load_experiment("peers").rows:
        assert (f"[`{row.name}`]({row.name}.md)" in page) == (
            row.name in next(r for r in load_experiment("peers").rows if r.members).members
        )
    assert "unweighted mean" in page
    assert "| ensemble of 7 | macro AUROC | 0.929 | 0.939 | 0.933 | 0.965 |" in page
    assert "Together 6,568,305 parameters" in page
    assert {run.backbone for words in _reproductions(page) for run in _runs(words)} >= {
        "xresnet1d101", "wavelet_nn",
    }  # fmt: skip


def test_every_network_made_for_the_task_has_a_cost(pages: dict[str, str]) -> None:
    (section,) = re.findall(r"## What training them costs\n(.*)", pages["README.md"], re.DOTALL)
    for name, about in PEERS.items():
        line = _lines(section, f"[`{name}`]({name}.md)")
        recipe = load_recipe(about.recipe).stage2
        assert recipe is not None
        assert line[1:3] == [f"`{about.recipe}`", str(recipe.epochs)]
        assert line[3:] != ["–", "–"], name
    assert "about 27 h, 16 minutes an epoch" in section
    known = _part("costs").tomllib.loads((DOCS / "pages" / "costs.toml").read_text())
    assert known.keys() <= PEERS.keys()


def test_the_example_measures_what_has_to_be_measured(pages: dict[str, str]) -> None:
    fitted = {name for name, page in pages.items() if "backbone.fit_statistics(batches)" in page}
    assert fitted == {"wavelet_nn.md"}


def test_links_lead_somewhere(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert (DOCS / "networks" / link).resolve().is_file() or link in pages, (name, link)


@pytest.mark.parametrize("name", ["fcn_wang", "s4_tiny", "st_mem_tiny", "wavelet_nn"])
def test_examples_run_and_give_the_shape_that_they_name(name: str, pages: dict[str, str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", pages[f"{name}.md"], flags=re.DOTALL)
    lines = re.sub(r"torch\.(zeros|randn)\(8,", r"torch.\1(2,", example).splitlines()
    shaped = next(line for line in lines if ".shape" in line)
    said = re.search(r"\(8, (\d+)\)", shaped)
    assert said is not None
    lines[lines.index(shaped)] = f"shape = {shaped}"
    names: dict[str, object] = {}
    with torch.no_grad():
        exec("\n".join(lines), names)
    assert names["shape"] == (2, int(said.group(1)))


def test_docstrings_become_markdown() -> None:
    network = _part("network")
    text = (
        'One.\n\nPart\n----\n``x="y"`` is a literal.\n\nTerm\n    its\n    meaning.\nOther\n    b.'
    )
    said = network.as_markdown(text)
    assert "### Part" in said
    assert "`x=" in said
    assert "* *Term*:\n  its\n  meaning." in said
    assert "* *Other*:\n  b." in said


def test_numbers_are_found_in_groups_and_in_rows_of_table_1() -> None:
    results = _part("results")
    value = {"mean": 0.9, "interval": [0.8, 1.0], "seeds": [0]}
    group = {"backbone": "a", "variant": "x", "task": "all-71", "auroc": value, "auprc": value}
    row = {
        "backbone": "b", "variant": "y", "short_schedule": "20 of 50 epochs",
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
