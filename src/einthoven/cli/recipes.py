"""The command `recipes`: list the shipped recipes, show one, copy one to edit it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from einthoven.cli.options import output_file
from einthoven.cli.progress import echo, note, output
from einthoven.errors import RecipeError
from einthoven.files import read_toml, write_text
from einthoven.models import SHIPPED, initialisation_of


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show one recipe with its comments.")
    ] = None,
    backbone: Annotated[
        str,
        typer.Option(help="Backbone whose post-training, fine-tuning, ... NAME stands for."),
    ] = SHIPPED,
    copy: Annotated[
        Path | None,
        typer.Option(
            callback=output_file,
            metavar="FILE",
            help="Write the recipe to a new .toml file, to edit.",
        ),
    ] = None,
) -> None:
    """List the shipped recipes: name, backbones, content; with NAME, show one in full.

    A file of your own is a recipe too, for `posttrain --recipe FILE` and `pretrain --recipe FILE`:
    an edited copy, or a few keys. It takes the keys that it leaves out from the recipe that it
    `extends`, or from the one that suits the backbone. docs/recipes.md describes every key.
    """
    from einthoven.stages.recipe import (
        RECIPES,
        Pretraining,
        Recipe,
        recipe_file,
        recipe_for,
        recipe_names,
    )

    if name is None:
        if copy:
            raise RecipeError("--copy applies to one recipe", remedy="name the recipe")
        _print_list()
        return
    kind = Pretraining if name in recipe_names(Pretraining) else Recipe
    file = recipe_file(recipe_for(initialisation_of(backbone, random=True).backbone, name), kind)
    is_own = not file.is_relative_to(RECIPES)
    if is_own and copy:
        raise RecipeError(f"--copy: {name} is no shipped recipe", remedy="copy the file itself")
    read_toml(file, RecipeError)
    text = file.read_text(encoding="utf-8")
    if is_own:
        echo(text.rstrip())
        return
    shipped = file.stem if kind is Pretraining else str(file.relative_to(RECIPES).with_suffix(""))
    if shipped != name:
        note(f"Recipe {shipped}, for {backbone}")
    if copy is None:
        echo(text.rstrip())
        return
    if copy.suffix != ".toml" or copy.exists():
        problem = "exists already" if copy.exists() else "does not end in .toml"
        raise RecipeError(f"--copy: {copy} {problem}", remedy="name a new .toml file")
    text = re.sub(r"(?m)^extends = .*\n", "", text)
    lines = f"extends = {json.dumps(shipped)}\nname = {json.dumps(copy.stem)}"
    write_text(copy, re.sub(r"(?m)^name = .*$", lambda _: lines, text, count=1))
    echo(f"Recipe: {copy}")


def _print_list() -> None:
    from einthoven.backbones.registry import catalogue
    from einthoven.stages.recipe import GENERAL, Pretraining, Recipe, recipe_file, recipe_names

    for kind, command in ((Recipe, "posttrain"), (Pretraining, "pretrain")):
        columns = Column("name", no_wrap=True), Column("default for", max_width=18), "content"
        title = f"einthoven {command} --recipe"
        table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, width=80)
        defaults = [
            (e.pretraining_recipe if kind is Pretraining else e.recipe or e.recipes, e.name)
            for e in catalogue().values()
        ]
        for name in recipe_names(kind):
            group = name.partition("/")[0]
            suited = [backbone for recipe, backbone in defaults if recipe == group]
            if group in ("st-mem", "release"):
                suited = ["all others"]
            content = tomllib.loads(recipe_file(name, kind).read_text("utf-8"))["description"]
            if name not in GENERAL:
                table.add_row(name, ", ".join(suited), content)
        output.print(table)
    echo(
        f"{', '.join(GENERAL)}, without a folder:\n"
        "the recipe of this name for the backbone\n"
        "In full: einthoven recipes NAME; as a file to edit: --copy FILE.toml"
    )
