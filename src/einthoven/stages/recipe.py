"""Recipes: TOML, checked before any data is read.

Each field below is one open point of the published method, with its default and its alternatives
(Na et al. 2024 for ST-MEM's own settings; arXiv 2509.12991 for the two stages).
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from einthoven.errors import RecipeError

RECIPES = Path(__file__).resolve().parent.parent / "recipes"

_GENERAL, _PRETRAINING = "post-training", "pretraining"
EXPERIMENTS = "reproduce"  # grids of recipes, see `einthoven.reproduce`

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
NonNegative = Annotated[float, Field(ge=0)]
Betas = tuple[Rate, Rate]
Option = bool | int | float | str | tuple[float, ...]
M = TypeVar("M", bound=BaseModel)


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Data(_Table):
    """How records become batches."""

    crop_seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of a training and evaluation crop; the backbone's own window without it."""
    augmentation: Literal["none", "rand-augment", "lead-mask"] = "rand-augment"
    """What is done to training crops after preparation. ST-MEM: RandAugment, 2 of 8 at level 10."""
    augmentation_level: Annotated[float, Field(ge=0, le=10)] = 10
    """RandAugment's level; 0 changes nothing."""
    evaluation_crops: Positive | None = None
    """Crops a record is evaluated on, evenly spaced; the backbone's own number without it."""
    aggregate: Literal["probability", "logit", "max"] = "probability"
    """How crops are joined: mean probability (ST-MEM), mean logit, or highest probability."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training records, as whole patients; nested and stratified."""


class Stage1(_Table):
    """Preview linear probing: a new head on the frozen backbone."""

    epochs: Positive = 100
    """The paper names 100."""
    crops: Positive = 1
    """Augmented crops a record whose features are computed, once, and cached."""
    batch_size: Positive = 256
    """Records a step."""
    base_lr: LearningRate = 1e-3
    """Learning rate per 256 samples; ST-MEM's released setting."""
    base_lr_sweep: tuple[LearningRate, ...] = ()
    """Rates to try on the cached features; the best on validation is kept."""
    weight_decay: NonNegative = 0.05
    """On the head, biases included, as ST-MEM does."""
    warmup_epochs: NonNegative = 3
    """Linear warm-up."""
    min_lr: NonNegative = 0.0
    """End of the cosine."""
    betas: Betas = (0.9, 0.999)
    """AdamW's."""
    head_init: Literal["stock", "zero", "normal-0.01"] = "stock"
    """Start of the head."""
    hand_on: Literal["best", "last"] = "best"
    """Which head goes on: best validation macro AUROC (earliest on a tie), or the last."""


class Stage2(_Table):
    """Full fine-tuning."""

    epochs: Positive = 50
    """The paper's validation curves show 50; ST-MEM's release has 10."""
    batch_size: Positive = 16
    """Records an optimiser step sees, over all processes and micro-batches."""
    micro_batch: Positive | None = None
    """Records a forward pass sees; smaller than the batch accumulates gradients."""
    base_lr: LearningRate = 1e-3
    """Learning rate per 256 samples; ST-MEM's released setting."""
    weight_decay: NonNegative = 0.05
    """ST-MEM's released setting."""
    decay_exempt: Literal["none", "1d", "backbone"] = "none"
    """Tensors without weight decay: none (ST-MEM), all 1-D ones, or those its source exempts."""
    warmup_epochs: NonNegative = 3
    """Linear warm-up."""
    min_lr: NonNegative = 0.0
    """End of the cosine."""
    betas: Betas = (0.9, 0.999)
    """AdamW's."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from a layer to the one below it; 1 is off, MAE takes 0.75."""
    drop_path: Rate = 0.0
    """Stochastic depth on every residual branch; the paper takes 0.1."""
    drop_path_schedule: Literal["linear", "constant"] = "linear"
    """Over depth: from 0 in the first block to the rate in the last, or the same everywhere."""
    dropout: Rate = 0.0
    """The paper takes 0.01 in the feed-forward layers."""
    dropout_where: Literal["feed-forward", "stmem-all"] = "feed-forward"
    """Feed-forward layers only, or every dropout that ST-MEM's one knob reaches."""
    head_dropout: Rate = 0.0
    """In front of the head; for backbones without feed-forward layers."""
    head_init: Literal["stock", "zero", "normal-0.01"] = "stock"
    """Start of the head when there is no stage 1."""
    freeze_positions: bool = False
    """Keep position embeddings as pretrained; ST-MEM trains them."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm; ST-MEM clips nothing."""
    select: Literal["best", "last"] = "best"
    """Which epoch is kept: best validation macro AUROC (the paper), or the last."""

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Stage2:
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide batch_size {self.batch_size}"
            )
        return self


class Recipe(_Table):
    """How a backbone becomes a classifier."""

    name: str
    """Of the recipe; reports call the run by it."""
    description: str = ""
    """One line."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What batches, crops, heads and drops are drawn from."""
    initialise: Literal["pretrained", "random"] = "pretrained"
    """Where the backbone's weights come from."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of forward passes; `auto` is bf16 on a GPU and fp32 on a CPU."""
    data: Data = Data()
    """How records become batches."""
    stage1: Stage1 | None = None
    """Preview linear probing; left out, fine-tuning starts from a new head."""
    stage2: Stage2 | None = None
    """Full fine-tuning; left out, only the head is trained."""

    @model_validator(mode="after")
    def _has_a_stage(self) -> Recipe:
        if self.stage1 is None and self.stage2 is None:
            raise ValueError("neither stage1 nor stage2: nothing would be trained")
        if self.initialise == "random" and self.stage1 is not None:
            raise ValueError("a linear probe (stage1) of a random backbone is no recipe")
        return self


class CohortShare(_Table):
    """One of several cohorts that a pretraining recipe names."""

    path: str
    """As on the command line: PTB-XL's folder, a table, or a folder of ECG files."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Its share of every epoch, in ratio to the others'; by its number of records without it."""
    store: str | None = None
    """The packed cohort; made in the cache folder without it."""


class Pretraining(_Table):
    """How a backbone is pretrained."""

    name: str
    """Of the recipe."""
    description: str = ""
    """One line."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What weights, batches, crops and masks are drawn from."""
    objective: str = "mae"
    """What is learned: `mae` (masked reconstruction) or `cpc` (contrastive predictive coding)."""
    options: dict[str, Option] = {}
    """The objective's own settings, such as `mask_ratio` or `preset`; its module has them all."""
    crop_seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of a crop; the backbone's own window without it."""
    epochs: Positive = 800
    """Passes over the training records; of a mixture, as many draws as it has records."""
    batch_size: Positive = 4096
    """Records an optimiser step sees, over all processes and micro-batches."""
    micro_batch: Positive | None = None
    """Records a forward pass sees; smaller than the batch accumulates gradients."""
    base_lr: LearningRate = 1.5e-4
    """Learning rate per 256 samples."""
    weight_decay: NonNegative = 0.05
    """Of AdamW."""
    decay_exempt: Literal["none", "1d", "backbone"] = "none"
    """Tensors without weight decay: none (ST-MEM), all 1-D ones, or those its source exempts."""
    warmup_epochs: NonNegative = 40
    """Linear warm-up."""
    min_lr: NonNegative = 0.0
    """End of the cosine."""
    betas: Betas = (0.9, 0.95)
    """AdamW's."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of forward passes; `auto` is bf16 on a GPU and fp32 on a CPU."""
    keep_every: Positive | None = None
    """Keep the encoder of every n-th epoch, `snapshots/epoch-0010.safetensors`."""
    keep_last: Annotated[int, Field(ge=0)] = 0
    """Keep the encoders of the last epochs so far, as many as this."""
    keep_best: bool = False
    """Keep the encoder of the lowest validation loss so far."""
    cohorts: tuple[CohortShare, ...] = ()
    """What to pretrain on, when the command line names no cohort."""

    @model_validator(mode="after")
    def _weights_for_all_or_none(self) -> Pretraining:
        if len({share.weight is None for share in self.cohorts}) > 1:
            raise ValueError("some cohorts have a weight and some have none")
        return self

    def asked(self) -> dict[str, Any]:
        """What a run that goes on has to repeat.

        The cohorts are left out, because a run says itself what they hold; so are keys that are
        younger than some runs, where they are at their default.
        """
        whole = self.model_dump(mode="json", exclude={"cohorts"})
        defaults = {key: type(self).model_fields[key].default for key in _YOUNGER}
        return {k: v for k, v in whole.items() if k not in defaults or v != defaults[k]}


_YOUNGER = ("keep_every", "keep_last", "keep_best")


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a post-training recipe: a preset's name or a TOML file.

    Parameters
    ----------
    name : str or path
        `post-training`, `fine-tuning`, `linear-probe`, `scratch`, or a `.toml` file.
    overrides : sequence of str
        `stage2.drop_path=0.2`, in TOML's notation; strings may go without quotes.

    Raises
    ------
    RecipeError
        For an unknown recipe or key, a wrong type, or an impossible combination.
    """
    return _checked(Recipe, name, overrides)


def load_pretraining(name: str | Path, overrides: Sequence[str] = ()) -> Pretraining:
    """Read a pretraining recipe: the name of a preset, such as `mae`, or a TOML file.

    Raises
    ------
    RecipeError
        As `load_recipe`.
    """
    return _checked(Pretraining, name, overrides)


def recipe_names(kind: type[BaseModel] = Recipe) -> list[str]:
    """Presets of a kind: `post-training`, ..., and those of an experiment, `folder/name`."""
    if kind is Pretraining:
        return sorted(file.stem for file in (RECIPES / _PRETRAINING).glob("*.toml"))
    general = sorted(file.stem for file in (RECIPES / _GENERAL).glob("*.toml"))
    experiments = sorted(
        f"{file.parent.name}/{file.stem}"
        for file in RECIPES.glob("*/*.toml")
        if file.parent.name not in (_PRETRAINING, _GENERAL, EXPERIMENTS)
    )
    return general + experiments


def _checked(kind: type[M], name: str | Path, overrides: Sequence[str]) -> M:
    table = _read(kind, name)
    for override in overrides:
        _apply(table, override)
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(_describe(entry) for entry in error.errors())
        raise RecipeError(
            f"recipe {name}: {problems}",
            remedy="correct the recipe or the --set option; docs/recipes.md lists every key",
        ) from error


def _read(kind: type[BaseModel], name: str | Path) -> dict[str, Any]:
    file = Path(name)
    if file.suffix != ".toml":
        if str(name) not in recipe_names(kind):
            raise RecipeError(
                f"no recipe {str(name)!r}",
                remedy=f"choose {', '.join(recipe_names(kind))}, or name a .toml file",
            )
        folder = _PRETRAINING if kind is Pretraining else "" if "/" in str(name) else _GENERAL
        file = RECIPES / folder / f"{name}.toml"
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        raise RecipeError(f"{file} is missing", remedy="name an existing .toml file") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file} is no TOML: {error}", remedy="correct that line") from error


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(
            f"--set {override!r} is no assignment", remedy="write --set stage2.drop_path=0.2"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, last = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {key}: {section} is no section", remedy="check the name")
    table[last] = value


def _describe(entry: Any) -> str:
    where = ".".join(str(part) for part in entry["loc"]) or "recipe"
    if entry["type"] == "extra_forbidden":
        return f"unknown key {where}"
    return f"{where} = {entry.get('input')!r}: {entry['msg']}"
