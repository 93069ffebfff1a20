"""`einthoven recipes` lists, shows and copies the shipped recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from einthoven.stages.recipe import (
    GENERAL,
    Pretraining,
    load_pretraining,
    load_recipe,
    recipe_file,
    recipe_names,
)


def test_list_has_every_recipe_within_80_columns(cli: Any) -> None:
    lines = cli("recipes").out.splitlines()
    assert max(map(len, lines)) <= 80
    names = {line.split()[0] for line in lines if line.strip()}
    assert {*recipe_names(), *recipe_names(Pretraining)} - {*GENERAL} <= names
    assert any("strodthoff-rnn" in line and "lstm, lstm_bidir" in line for line in lines)


def test_name_shows_the_file_of_the_backbone(cli: Any) -> None:
    for backbone, name in (("s4", "s4-240hz/scratch"), ("st_mem_base", "st-mem/scratch")):
        shown = cli("recipes", "scratch", "--backbone", backbone)
        assert shown.out.rstrip() == recipe_file(name).read_text().rstrip()
        assert name in shown.err
    assert " scratch" in cli("recipes", "scrach", status=1).err


def test_a_file_of_the_user_is_shown(cli: Any, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    assert own.name in cli("recipes", own, status=1).err
    own.write_text("# mine\nseed = 1\n")
    assert cli("recipes", own).out.strip() == own.read_text().strip()
    assert own.name in cli("recipes", own, "--copy", tmp_path / "new.toml", status=1).err


def test_copy_is_the_same_recipe_under_another_name(cli: Any, tmp_path: Path) -> None:
    loaders = dict.fromkeys(recipe_names(Pretraining), load_pretraining)
    for name, load in {**loaders, **dict.fromkeys(recipe_names(), load_recipe)}.items():
        copy = tmp_path / f"{name.replace('/', '-')}.toml"
        cli("recipes", name, "--copy", copy, "--backbone", "s4_small")
        original, copied = load(name, backbone="s4_small"), load(copy, backbone="s4_small")
        same = {"name": copy.stem, "extends": copied.extends}
        assert copied == original.model_copy(update=same)
        assert copied.extends.endswith(name)


def test_copy_overwrites_nothing(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("seed = 1")
    assert "mine.toml" in cli("recipes", "mae", "--copy", tmp_path / "mine.toml", status=1).err
    assert (tmp_path / "mine.toml").read_text() == "seed = 1"
    assert "mine.txt" in cli("recipes", "mae", "--copy", tmp_path / "mine.txt", status=1).err
    assert "--copy" in cli("recipes", "--copy", tmp_path / "x.toml", status=1).err
