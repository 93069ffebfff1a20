"""Experiments as data: which recipes, tasks, seeds and fractions a reproduction is made of.

An experiment is a TOML file. Its arms point at recipes and may change single keys of them, for
all backbones or for one; nothing in the code knows a learning rate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from einthoven.errors import EvaluationError, ReproduceError
from einthoven.evaluate.estimate import Plan
from einthoven.reproduce import published
from einthoven.reproduce.changes import changes
from einthoven.stages.recipe import Pretraining, Recipe, load_pretraining, load_recipe

OURS, PLAIN = "post-training", "fine-tuning"
PROBE, SCRATCH, SCRATCH_OURS = "linear-probe", "scratch", "scratch-post-training"
NO_DEPTH, NO_PROBE = "without-stochastic-depth", "without-probe"
TABLE_1 = "table-1"

Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Arm(_Table):
    """One way of making a classifier: a recipe, and what is changed in it."""

    recipe: str
    """A preset, or a `.toml` file (relative to the experiment's own)."""
    description: str = ""
    """One line, for tables; the recipe's own without it."""
    set: tuple[str, ...] = ()
    """Changes, as in `--set`: `stage2.drop_path=0.0`."""
    without: tuple[Literal["stage1", "stage2"], ...] = ()
    """Stages of the recipe to leave out."""
    start: Literal["pretrained", "random"] = "pretrained"
    """Where the backbone's weights come from. A recipe with a linear probe that starts from
    random weights probes the frozen random network."""


class ArmChange(_Table):
    """What one backbone changes of an arm."""

    recipe: str | None = None
    """Another recipe."""
    set: tuple[str, ...] = ()
    """Further changes, applied last."""


class Source(_Table):
    """Where pretrained weights come from when none are given."""

    recipe: str
    """A pretraining preset, or a `.toml` file."""
    set: tuple[str, ...] = ()
    """Changes."""
    per_seed: bool = False
    """One pretraining for every seed, instead of one (seed 0) that all seeds share."""
    options: dict[str, Any] = {}
    """Fields of the backbone's config while it is pretrained, over those it has afterwards."""


class ForBackbone(_Table):
    """What one backbone changes of an experiment."""

    pretraining: Source | None = None
    """Another pretraining."""
    set: tuple[str, ...] = ()
    """Changes of every arm's recipe, where it has the section; before the arm's own."""
    arms: dict[str, ArmChange] = {}
    """Changes of single arms."""
    options: dict[str, Any] = {}
    """Fields of the backbone's config, such as `leads`."""
    short_schedule: str = ""
    """The schedule in words, where it is shorter than the recipe's: table 1 marks such rows. Fewer
    epochs than the recipe has are noticed without it."""


class Seeds(_Table):
    """Seeds of some cells; an empty list matches everything."""

    seeds: tuple[Seed, ...]
    """Which."""
    arms: tuple[str, ...] = ()
    """Of these arms."""
    tasks: tuple[str, ...] = ()
    """On these tasks."""
    fractions: tuple[Fraction, ...] = ()
    """At these shares of the training records."""


class Row(_Table):
    """A row of table 1: a backbone and a recipe, or the mean prediction of other rows."""

    name: str
    """What the table and `--only row=` call it."""
    arm: str = ""
    """The arm that names recipe and start."""
    backbone: str | None = None
    """The command's own without it."""
    members: tuple[str, ...] = ()
    """Names of other rows, instead of an arm: the mean of their predictions, seed by seed."""
    published: str | None = None
    """Name of the published row that it stands beside."""
    our_reading: str = ""
    """What the published sources leave open: table 1 marks the row as our reading of them."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Row:
        if bool(self.arm) == bool(self.members):
            raise ValueError(f"row {self.name} needs an arm or members, and not both")
        if self.members and self.backbone:
            raise ValueError(f"row {self.name} has members, which have backbones of their own")
        if self.published is not None and self.published not in published.ROWS:
            raise ValueError(
                f"row {self.name}: nothing is published as {self.published!r}, but as "
                f"{', '.join(published.ROWS)}"
            )
        return self


class Experiment(_Table):
    """A grid of runs."""

    name: str
    """Of the experiment."""
    description: str = ""
    """One line."""
    tasks: tuple[str, ...] = ("all-71", "diagnostic-44", "subclass-23", "rhythm-12")
    """The columns of the tables."""
    main_task: str = "all-71"
    """The task of all figures."""
    table_arms: tuple[str, ...] = (PLAIN, OURS)
    """Arms of table 2; any beyond the pair bring a table of all of them below the paper's."""
    table_arms_on: tuple[str, ...] = ()
    """Tasks on which those beyond the pair are run; all of them without any."""
    fractions: tuple[Fraction, ...] = (1.0,)
    """Shares of the training records, for figure 4."""
    seeds: tuple[Seed, ...] = (0,)
    """Of every cell that no entry of `more_seeds` matches."""
    more_seeds: tuple[Seeds, ...] = ()
    """Seeds of some cells; the last entry that matches decides."""
    schedule: tuple[str, ...] = ()
    """Changes of every recipe, where it has the section: `stage2.epochs=8`."""
    resamples: Annotated[int, Field(ge=0)] = 1000
    """Of the bootstrap."""
    min_records: Annotated[int, Field(ge=0)] = 0
    """Leave out labels that fewer records carry; for cohorts that lack many."""
    table_1_only: bool = False
    """It makes table 1 alone: its `rows` say all, and it needs neither a pretraining nor the arms
    `post-training` and `fine-tuning`, which everything else compares."""
    made_for: tuple[str, ...] = ()
    """Backbones for which the command takes it when no experiment is named, if it is one of those
    that come with einthoven. Not taken from the one that it extends."""
    extends: str = ""
    """Another experiment, a name or a `.toml` file beside this one: every key that this one lacks
    is taken from there."""
    pretraining: Source | None = None
    """Where weights come from when none are given."""
    arms: dict[str, Arm]
    """By name."""
    backbones: dict[str, ForBackbone] = {}
    """What single backbones change."""
    rows: tuple[Row, ...] = ()
    """Table 1; the command's backbone, plain and post-trained, without any."""
    folder: Path = Path()
    """Where the experiment's file lies; set when it is read."""
    asked: str = ""
    """What it was called when it was read: a name or a file."""

    @model_validator(mode="after")
    def _makes_what_it_says(self) -> Experiment:
        if not self.table_1_only:
            missing = [arm for arm in (OURS, PLAIN) if arm not in self.arms]
            if missing:
                raise ValueError(f"the arm {missing[0]} is missing")
            if self.pretraining is None:
                raise ValueError("pretraining is missing; only table_1_only does without")
            return self
        if not self.rows:
            raise ValueError("table_1_only without rows")
        idle = {"table_arms", "table_arms_on", "fractions"} & self.model_fields_set
        if idle:
            raise ValueError(f"table_1_only, and {sorted(idle)[0]} is not of table 1")
        return self

    @model_validator(mode="after")
    def _has_enough_resamples(self) -> Experiment:
        try:
            Plan(resamples=self.resamples)
        except EvaluationError as error:
            raise ValueError(error.problem) from error
        return self

    @model_validator(mode="after")
    def _holds_together(self) -> Experiment:
        used = [row.arm for row in self.rows if row.arm]
        used += [arm for each in self.more_seeds for arm in each.arms]
        used += () if self.table_1_only else self.table_arms
        used += [arm for each in self.backbones.values() for arm in each.arms]
        unknown = sorted(set(used) - set(self.arms))
        if unknown:
            raise ValueError(f"unknown arm {unknown[0]}; there are {', '.join(self.arms)}")
        if self.main_task not in self.tasks:
            raise ValueError(f"main_task {self.main_task} is none of the tasks")
        odd = [name for name in (self.name, *self.arms) if not _NAME.fullmatch(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is no name for a folder: letters, digits, . _ and -")
        return self

    @model_validator(mode="after")
    def _table_1_holds_together(self) -> Experiment:
        names = [row.name for row in self.rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rows are called {twice[0]}")
        single = {row.name for row in self.rows if row.arm}
        for row in self.rows:
            unknown = sorted(set(row.members) - single)
            if unknown:
                raise ValueError(f"row {row.name}: no row {unknown[0]} with an arm")
        return self

    @model_validator(mode="after")
    def _table_2_holds_together(self) -> Experiment:
        missing = [arm for arm in (OURS, PLAIN) if arm not in self.table_arms]
        if missing:
            raise ValueError(f"table_arms leaves out {missing[0]}, which the table compares")
        if len(set(self.table_arms)) < len(self.table_arms):
            raise ValueError(f"table_arms names an arm twice: {', '.join(self.table_arms)}")
        unknown = sorted(set(self.table_arms_on) - set(self.tasks))
        if unknown:
            raise ValueError(f"table_arms_on names {unknown[0]}, which is none of the tasks")
        return self

    @property
    def names_every_backbone(self) -> bool:
        """Whether its rows leave none to the command."""
        return self.table_1_only and all(row.backbone or row.members for row in self.rows)

    def table_arms_of(self, task: str) -> tuple[str, ...]:
        """Arms of table 2 that are run on a task, in the order of its columns."""
        all_of_them = not self.table_arms_on or task in self.table_arms_on
        return tuple(arm for arm in self.table_arms if all_of_them or arm in (OURS, PLAIN))

    def seeds_of(self, arm: str, task: str, fraction: float) -> tuple[int, ...]:
        """Seeds of a cell."""
        found = self.seeds
        for entry in self.more_seeds:
            wanted = ((entry.arms, arm), (entry.tasks, task), (entry.fractions, fraction))
            if all(not names or value in names for names, value in wanted):
                found = entry.seeds
        return found

    def recipe(self, arm: str, backbone: str, *, seed: int = 0, fraction: float = 1.0) -> Recipe:
        """The recipe of a cell, with every change applied.

        Raises
        ------
        RecipeError
            When the arm's recipe or one of its changes is wrong.
        """
        about, own = self.arms[arm], self.backbones.get(backbone, ForBackbone())
        change = own.arms.get(arm, ArmChange())
        source = self._recipe_file(arm, backbone)
        whole = load_recipe(source)
        kept = [*_applicable((*self.schedule, *own.set), whole), *about.set, *change.set]
        table = load_recipe(source, [*kept, f"seed={seed}"]).model_dump()
        table |= dict.fromkeys(about.without) | {"name": arm}
        table["data"]["fraction"] = fraction
        if about.description:
            table["description"] = about.description
        if about.start == "random" and table["stage1"] is None:
            table["initialise"] = "random"
        return Recipe.model_validate(table)

    def starts_random(self, arm: str, backbone: str) -> bool:
        """Whether an arm starts from random weights."""
        recipe = load_recipe(self._recipe_file(arm, backbone))
        return self.arms[arm].start == "random" or recipe.initialise == "random"

    def short_schedule(self, arm: str, backbone: str) -> str:
        """By how much an arm's schedule is shorter than its recipe's, in words; else nothing."""
        if said := self.backbones.get(backbone, ForBackbone()).short_schedule:
            return said
        whole = load_recipe(self._recipe_file(arm, backbone)).stage2
        own = self.recipe(arm, backbone).stage2
        if own is None or whole is None or own.epochs >= whole.epochs:
            return ""
        return f"{own.epochs} of {whole.epochs} epochs"

    def changes(self, arm: str, backbone: str) -> list[str]:
        """What else an arm's recipe changes of the one that it points at, in words."""
        whole = load_recipe(self._recipe_file(arm, backbone))
        return changes(self.recipe(arm, backbone), whole)

    def options_of(self, backbone: str) -> dict[str, Any] | None:
        """Fields of a backbone's config that the experiment sets."""
        return self.backbones.get(backbone, ForBackbone()).options or None

    def pretraining_options(self, backbone: str) -> dict[str, Any] | None:
        """Fields of a backbone's config while it is pretrained."""
        own = self.options_of(backbone) or {}
        return (own | self.source_of(backbone).options) or None

    def source_of(self, backbone: str) -> Source:
        """Where a backbone's weights come from when none are given.

        Raises
        ------
        ReproduceError
            When the experiment does not say so.
        """
        found = self.backbones.get(backbone, ForBackbone()).pretraining or self.pretraining
        if found is None:
            raise ReproduceError(
                f"experiment {self.name} says nowhere how {backbone} is pretrained",
                remedy="name --weights, or give the experiment a [pretraining]",
            )
        return found

    def pretraining_recipe(self, backbone: str, seed: int) -> Pretraining:
        """How a backbone is pretrained.

        Raises
        ------
        RecipeError
            When the recipe or one of its changes is wrong.
        """
        source = self.source_of(backbone)
        return load_pretraining(self._file(source.recipe), [*source.set, f"seed={seed}"])

    def _recipe_file(self, arm: str, backbone: str) -> str | Path:
        own = self.backbones.get(backbone, ForBackbone()).arms.get(arm, ArmChange())
        return self._file(own.recipe or self.arms[arm].recipe)

    def _file(self, recipe: str) -> str | Path:
        return self.folder / recipe if recipe.endswith(".toml") else recipe


def _applicable(changes: Iterable[str], recipe: Recipe) -> list[str]:
    # A schedule names stages that not every recipe has; setting a key would bring the stage in.
    absent = [stage for stage in ("stage1", "stage2") if getattr(recipe, stage) is None]
    return [change for change in changes if change.split(".", 1)[0] not in absent]
