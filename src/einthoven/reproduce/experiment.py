"""Experiments as data: the recipes, tasks, seeds and fractions of a reproduction.

An experiment is a TOML file. Its variants refer to recipes and may change single keys of them, for
all backbones or for one; the code contains no hyperparameter.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from einthoven.errors import ReproduceError
from einthoven.files import read_toml
from einthoven.reproduce import published
from einthoven.stages.recipe import GENERAL as RECIPES_OF_BACKBONES
from einthoven.stages.recipe import (
    Pretraining,
    Recipe,
    Seed,
    assignments,
    load_pretraining,
    load_recipe,
    recipe_for,
)
from einthoven.tasks import Task
from einthoven.training.optim import Toml

POST, PLAIN = "post-training", "fine-tuning"
PROBE, SCRATCH, SCRATCH_POST = "linear-probe", "scratch", "scratch-post-training"
NO_DEPTH, NO_PROBE = "without-stochastic-depth", "without-probe"
GENERAL = "ptbxl-100hz-cpu"  # the experiment of backbones that no other is made for
COMPARISON = "objectives-100hz-cpu"  # that of the table of objectives
EXPERIMENTS = Path(__file__).parent / "experiments"

Fraction = Annotated[float, Field(gt=0, le=1)]
FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._=-]*$"
Target = Annotated[Task, BeforeValidator(lambda keys: Task(**keys))]
FolderName = Annotated[str, Field(pattern=FOLDER_NAME)]
_NOT_EXTENDED = {"name", "description", "made_for"}
_NO_CHANGE = {"name", "description", "seed", "data.fraction"}  # fields that differ in every run
_EPOCHS = "stage2.epochs"


class Variant(Toml):
    """A way to train a classifier: a recipe, and changes of it."""

    recipe: str
    """A preset, or a `.toml` file (relative to the experiment's file). `post-training`,
    `fine-tuning`, `linear-probe` and `scratch` are those of the backbone."""
    description: str = ""
    """One line, for tables; by default the recipe's."""
    set: tuple[str, ...] = ()
    """Changes, as in `--set`: `stage2.drop_path=0.0`."""
    without: tuple[Literal["stage1", "stage2"], ...] = ()
    """Stages of the recipe to leave out."""
    start: Literal["pretrained", "random"] = "pretrained"
    """Initial weights of the backbone. A recipe with a linear probe that starts from random
    weights probes the frozen random network."""
    equal_steps: bool = False
    """Divide the epochs of fine-tuning, and those of its warm-up, by the share of the training
    records, so that every share has as many steps; shown in figure 4."""


class PretrainingSource(Toml):
    """Pretraining, for backbones without given weights."""

    name: FolderName | Literal[""] = ""
    """Name; entries of a list have one, and make the experiment one of the table `objectives`."""
    recipe: str = ""
    """A pretraining preset, or a `.toml` file; without one, a named entry is the random network."""
    backbone: str = ""
    """The encoder; by default the command's."""
    set: tuple[str, ...] = ()
    """Changes of the recipe."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of the backbone's config during pretraining, over those it has afterwards."""
    axes: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values by key, every combination of which is a pretraining of its own. A key is one of the
    recipe (`objective`, `fraction`, `options.mask_ratio`), `backbone`, or `backbone.FIELD` of its
    config."""
    variants: tuple[str, ...] = ()
    """Variants that start from the entry, for the table `objectives`; by default all."""

    @model_validator(mode="after")
    def _check(self) -> PretrainingSource:
        if not (self.name or self.recipe):
            raise ValueError("neither a name nor a recipe")
        return self

    @field_validator("axes", mode="before")
    @classmethod
    def _flatten(cls, axes: Any) -> Any:
        return dict(assignments(axes)) if isinstance(axes, dict) else axes

    def combinations(self) -> Iterator[PretrainingSource]:
        """The pretraining of every combination of values, with a name of its own."""
        for values in product(*self.axes.values()):
            change: dict[str, Any] = {"axes": {}}
            name, options, settings = [self.name], dict(self.options), [*self.set]
            for key, value in zip(self.axes, values, strict=True):
                if key == "backbone":
                    change[key] = value
                    continue
                text = value if isinstance(value, str) else json.dumps(value)
                name.append(text if isinstance(value, str) else f"{key.split('.')[-1]}={text}")
                if key.startswith("backbone."):
                    options[key.removeprefix("backbone.")] = value
                else:
                    settings.append(f"{key}={json.dumps(value)}")
            change |= {"name": "-".join(name), "set": tuple(settings), "options": options}
            yield self.model_copy(update=change)


class BackboneChange(Toml):
    """Changes of an experiment for one backbone."""

    pretraining: PretrainingSource | None = None
    """Pretraining in place of the experiment's."""
    set: tuple[str, ...] = ()
    """Changes of every variant's recipe, where it has the section; before the variant's."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of the backbone's config, such as `leads`."""


class Seeds(Toml):
    """Seeds of some runs; an empty list matches everything."""

    seeds: tuple[Seed, ...]
    """Seeds of the matching runs."""
    variants: tuple[str, ...] = ()
    """Variants that they apply to."""
    tasks: tuple[str, ...] = ()
    """Tasks that they apply to."""
    fractions: tuple[Fraction, ...] = ()
    """Shares of the training records that they apply to."""


class Row(Toml):
    """A row of table 1: a backbone and a variant, or the mean prediction of other rows."""

    name: str
    """Name in the table and in `--only row=`."""
    variant: str = ""
    """The variant that gives recipe and initial weights."""
    backbone: str | None = None
    """By default the command's; `table_1_only` needs it."""
    members: tuple[str, ...] = ()
    """Names of other rows, instead of a variant: the mean of their predictions, seed by seed."""
    published: str | None = None
    """Name of the published row for comparison."""
    our_reading: str = ""
    """Details that the published sources leave open: table 1 marks the row as our reading."""

    @model_validator(mode="after")
    def _check(self) -> Row:
        if bool(self.variant) == bool(self.members):
            raise ValueError(f"row {self.name} needs either a variant or members")
        if self.published is not None and self.published not in published.ROWS:
            raise ValueError(
                f"row {self.name}: no published row {self.published!r}; there are "
                f"{', '.join(published.ROWS)}"
            )
        return self


class Experiment(Toml):
    """A grid of runs."""

    name: FolderName
    """Name of the experiment."""
    description: str = ""
    """One-line description."""
    tasks: tuple[str, ...] = ("all-71", "diagnostic-44", "subclass-23", "rhythm-12")
    """The columns of the tables."""
    main_task: str = "all-71"
    """The task of all figures."""
    targets: dict[FolderName, Target] = Field(default_factory=dict)
    """Tasks that the cohort does not name, as in `task.toml`: labels, by the name in `tasks`."""
    table_variants: tuple[str, ...] = (PLAIN, POST)
    """Variants of table 2; with more than the pair, a second table compares all of them."""
    table_variants_on: tuple[str, ...] = ()
    """Tasks on which variants beyond the pair are run; by default all."""
    fractions: tuple[Fraction, ...] = (1.0,)
    """Shares of the training records, for figure 4."""
    fraction_rows: tuple[str, ...] = ()
    """Rows of table 1 that figure 4 shows beside the pair and the variants of equal steps."""
    seeds: tuple[Seed, ...] = (0,)
    """Seeds of every run that no entry of `more_seeds` matches."""
    more_seeds: tuple[Seeds, ...] = ()
    """Seeds of some runs; the last matching entry applies."""
    schedule: tuple[str, ...] = ()
    """Changes of every recipe, where it has the section: `stage2.epochs=8`."""
    resamples: Annotated[int, Field(ge=0)] = 1000
    """Resamples of the bootstrap."""
    min_records: Annotated[int, Field(ge=0)] = 0
    """Leave out labels with fewer records; for cohorts that lack many."""
    table_1_only: bool = False
    """The experiment makes table 1 alone: `rows` define it, and it does not need the variants
    `post-training` and `fine-tuning`."""
    made_for: tuple[str, ...] = ()
    """Backbones for which this is the default experiment, if it is one of einthoven's. Not
    inherited by experiments that extend it."""
    extends: str = ""
    """Another experiment, a name or a `.toml` file in the same folder, that provides every
    missing key."""
    pretraining: tuple[PretrainingSource, ...] = ()
    """Pretraining of backbones without given weights; without it, `--weights` is required. A list
    of named ones, `[[pretraining]]`, is for the table `objectives`."""
    variants: dict[FolderName, Variant]
    """Variants by name."""
    backbones: dict[str, BackboneChange] = Field(default_factory=dict)
    """Changes for single backbones."""
    rows: tuple[Row, ...] = (
        Row(name="plain fine-tuning", variant=PLAIN, published="Transformer-FM"),
        Row(name="post-training", variant=POST, published="Transformer-FM-PT"),
    )
    """Rows of table 1; by default the command's backbone, plain and post-trained."""
    folder: Path = Path()
    """Folder of the experiment's file; set when it is read."""

    @field_validator("pretraining", mode="before")
    @classmethod
    def _as_list(cls, sources: Any) -> Any:
        return [sources] if isinstance(sources, dict) else sources

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        names = [name for entry in self.more_seeds for name in entry.variants]
        if self.compares_pretraining:
            self._check_pretrainings()
            names += [name for source in self.pretraining for name in source.variants]
        else:
            names += [row.variant for row in self.rows if row.variant]
        if self.table_1_only:
            if not self.rows or not all(row.backbone or row.members for row in self.rows):
                raise ValueError("table_1_only needs rows that name their backbones")
        elif not self.compares_pretraining:
            names += [POST, PLAIN, *self.table_variants]
            if missing := {POST, PLAIN} - set(self.table_variants):
                raise ValueError(f"table_variants lacks {sorted(missing)[0]}")
        if unknown := sorted(set(names) - set(self.variants)):
            raise ValueError(f"unknown variant {unknown[0]}; there are {', '.join(self.variants)}")
        if unknown := sorted({self.main_task, *self.table_variants_on} - set(self.tasks)):
            raise ValueError(f"{unknown[0]} is not among the tasks")
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"two rows have the same name: {', '.join(names)}")
        single = {row.name for row in self.rows if row.variant}
        if unknown := sorted(set(self.fraction_rows) - single):
            raise ValueError(f"fraction_rows: no row {unknown[0]} with a variant")
        if unknown := sorted({name for row in self.rows for name in row.members} - single):
            raise ValueError(f"no row {unknown[0]} with a variant")
        return self

    def _check_pretrainings(self) -> None:
        if not all(source.name for source in self.pretraining):
            raise ValueError("pretraining: an entry of several has no name")
        keys = [(source.backbone, source.name) for source in self.pretrainings]
        if doubled := [key for key, count in Counter(keys).items() if count > 1]:
            raise ValueError(f"pretraining: two of {doubled[0][0]} are named {doubled[0][1]}")
        for _, name in keys:
            if not re.fullmatch(FOLDER_NAME, name):
                raise ValueError(f"pretraining: {name!r} cannot be the name of a folder")

    @property
    def compares_pretraining(self) -> bool:
        """Whether the experiment makes the table `objectives`, of named pretrainings, alone."""
        return any(source.name for source in self.pretraining) or len(self.pretraining) > 1

    @property
    def has_backbones(self) -> bool:
        """Whether the experiment names every backbone itself."""
        if self.compares_pretraining:
            return all(source.backbone for source in self.pretrainings)
        return self.table_1_only

    @cached_property
    def pretrainings(self) -> tuple[PretrainingSource, ...]:
        """Every combination of the axes of every entry."""
        return tuple(chain.from_iterable(s.combinations() for s in self.pretraining))

    def pairs(self, backbone: str) -> dict[str, tuple[tuple[str, str], ...]]:
        """Backbone and variant of every row of table 1, or of its members, by the row's name."""
        single = {row.name: (row.backbone or backbone, row.variant) for row in self.rows}
        return {row.name: tuple(single[n] for n in row.members or [row.name]) for row in self.rows}

    def table_variants_of(self, task: str) -> tuple[str, ...]:
        """Variants of table 2 that are run on a task, in the order of its columns."""
        everything = not self.table_variants_on or task in self.table_variants_on
        return tuple(name for name in self.table_variants if everything or name in (POST, PLAIN))

    def seeds_of(self, variant: str, task: str, fraction: float) -> tuple[int, ...]:
        """Seeds of a variant on a task and share of the training records."""
        seeds = self.seeds
        for entry in self.more_seeds:
            filters = (
                (entry.variants, variant), (entry.tasks, task), (entry.fractions, fraction)
            )  # fmt: skip
            if all(not allowed or value in allowed for allowed, value in filters):
                seeds = entry.seeds
        return seeds

    def recipe(
        self, variant: str, backbone: str, *, seed: int = 0, fraction: float = 1.0
    ) -> Recipe:
        """The recipe of a run, with every change applied.

        Raises
        ------
        RecipeError
            If the variant's recipe or one of its changes is wrong.
        """
        definition, file = self.variants[variant], self._recipe_file(variant, backbone)
        original = load_recipe(file)
        # A schedule names stages that not every recipe has; setting a key would add the stage.
        absent = [stage for stage in ("stage1", "stage2") if getattr(original, stage) is None]
        general = (*self.schedule, *self._change(backbone).set)
        changes = [change for change in general if change.split(".", 1)[0] not in absent]
        table = load_recipe(file, [*changes, *definition.set, f"seed={seed}"]).model_dump()
        table |= dict.fromkeys(definition.without) | {"name": variant}
        table["data"]["fraction"] = fraction
        if definition.equal_steps and table["stage2"]:
            stage2 = table["stage2"]
            stage2["epochs"] = round(stage2["epochs"] / fraction)
            stage2["warmup_epochs"] /= fraction
        if definition.description:
            table["description"] = definition.description
        if definition.start == "random" and table["stage1"] is None:
            table["initialise"] = "random"
        return Recipe.model_validate(table)

    def changes(self, variant: str, backbone: str) -> tuple[str, list[str]]:
        """Differences to the variant's recipe.

        Returns
        -------
        str
            How much shorter the schedule is: "10 of 50 epochs"; empty if it is not.
        list of str
            The other differences: "precision bf16 instead of fp32".
        """
        original = load_recipe(self._recipe_file(variant, backbone))
        before, after = (
            pd.json_normalize(recipe.model_dump(mode="json")).iloc[0].to_dict()
            for recipe in (original, self.recipe(variant, backbone))
        )
        changes = {
            key: (after[key], value)
            for key, value in before.items()
            if key in after and after[key] != value and key not in _NO_CHANGE
        }
        short = ""
        if _EPOCHS in changes and after[_EPOCHS] < before[_EPOCHS]:
            short = "{} of {} epochs".format(*changes.pop(_EPOCHS))
        return short, [f"{key} {ours} instead of {value}" for key, (ours, value) in changes.items()]

    def options_of(self, backbone: str) -> dict[str, Any]:
        """Fields of a backbone's config that the experiment sets."""
        return self._change(backbone).options

    def source_of(self, backbone: str, name: str = "") -> PretrainingSource | None:
        """Pretraining of a backbone: the named one, or else the only one."""
        if name:
            return next(
                s for s in self.pretrainings if s.name == name and s.backbone in ("", backbone)
            )
        return self._change(backbone).pretraining or next(iter(self.pretraining), None)

    def pretraining_of(self, backbone: str, name: str = "") -> tuple[Pretraining, dict[str, Any]]:
        """Pretraining recipe of a backbone, and fields of its config during pretraining.

        Raises
        ------
        ReproduceError
            If the experiment does not define a pretraining.
        RecipeError
            If the recipe or one of its changes is wrong.
        """
        source = self.source_of(backbone, name)
        if source is None:
            raise ReproduceError(
                f"experiment {self.name} has no pretraining for {backbone}",
                remedy="pass --weights, or add a [pretraining] to the experiment",
            )
        recipe = load_pretraining(self._file(source.recipe), ["seed=0", *source.set])
        return recipe, self.options_of(backbone) | source.options

    def _change(self, backbone: str) -> BackboneChange:
        return self.backbones.get(backbone, BackboneChange())

    def _recipe_file(self, variant: str, backbone: str) -> str | Path:
        """Recipe of a variant; a general name stands for the recipe that suits the backbone."""
        recipe = self.variants[variant].recipe
        if recipe in RECIPES_OF_BACKBONES:
            return recipe_for(backbone, recipe)
        return self._file(recipe)

    def _file(self, recipe: str) -> str | Path:
        return self.folder / recipe if recipe.endswith(".toml") else recipe


def experiment_names() -> list[str]:
    """Names of einthoven's experiments."""
    return sorted(file.stem for file in EXPERIMENTS.glob("*.toml"))


def experiment_for(backbone: str) -> str:
    """Default experiment of a backbone: the one made for it, else the general one."""
    names = (name for name in experiment_names() if backbone in load_experiment(name).made_for)
    return next(names, GENERAL)


def load_experiment(name: str | Path) -> Experiment:
    """Read an experiment: one of einthoven's by name, or a TOML file.

    Raises
    ------
    ReproduceError
        If the experiment or a key is unknown, a type is wrong, or parts contradict each other.
    """
    file = _file_of(name)
    table = _with_base(file)
    try:
        return Experiment.model_validate(table | {"folder": file.resolve().parent})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, entry['loc'])) or 'experiment'}: {entry['msg']}"
            for entry in error.errors()
        )
        raise ReproduceError(
            f"{file}: {problems}",
            remedy="correct the experiment; docs/reproduce.md lists every key",
        ) from error


def _file_of(name: str | Path) -> Path:
    if Path(name).suffix == ".toml":
        return Path(name)
    if str(name) not in experiment_names():
        raise ReproduceError(
            f"no experiment {str(name)!r}",
            remedy=f"choose {', '.join(experiment_names())}, or a .toml file",
        )
    return EXPERIMENTS / f"{name}.toml"


def _with_base(file: Path) -> dict[str, Any]:
    """An experiment's keys, completed by those of the experiment that it extends."""
    table = read_toml(file, ReproduceError)
    if not isinstance(name := table.get("extends", ""), str) or not name:
        return table
    base_file = _file_of(file.parent / name if name.endswith(".toml") else name)
    base = read_toml(base_file, ReproduceError)
    if "extends" in base:
        raise ReproduceError(
            f"{file} extends {base_file}, which extends another", remedy="extend that one"
        )
    return {key: base[key] for key in base.keys() - _NOT_EXTENDED} | table
