"""Recipes: TOML files, checked before any data are read.

Each key is one open point of a published method, with its default and its alternatives. Defaults
are those of Na et al. 2024 for ST-MEM, and of arXiv 2509.12991 for the two stages. Keys that only
the networks of the PTB-XL benchmark need (Strodthoff et al. 2021) are off by default.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from einthoven.backbones.registry import entry
from einthoven.errors import RecipeError
from einthoven.files import Json
from einthoven.training.optim import Cycle

RECIPES = Path(__file__).resolve().parent / "recipes"
_GENERAL, _PRETRAINING = "post-training", "pretraining"
_STAGES = ("stage1", "stage2")

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
NonNegative = Annotated[float, Field(ge=0)]
Betas = tuple[Rate, Rate]
HeadInit = Literal["stock", "zero", "normal-0.01", "kaiming-normal", "glorot-uniform"]

Option = bool | int | float | str | tuple[float, ...]
M = TypeVar("M", bound=BaseModel)


class Table(BaseModel):
    """Table of a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return self.model_dump(mode="json")


class Data(Table):
    """Preparation of records and batches."""

    crop_seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of training and evaluation crops; default: the window of the backbone."""
    augmentation: Literal["none", "rand-augment", "lead-mask"] = "rand-augment"
    """Augmentation of prepared training crops. ST-MEM: RandAugment, 2 of 8 at level 10."""
    augmentation_level: Annotated[float, Field(ge=0, le=10)] = 10
    """Strength of RandAugment; 0 changes nothing."""
    evaluation_crops: Positive | None = None
    """Evenly spaced evaluation crops per record; default: the number of the backbone."""
    aggregate: Literal["probability", "logit", "max"] = "probability"
    """Aggregation of crops: mean probability (ST-MEM), mean logit, or highest probability."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training records, by whole patients; nested and stratified."""
    standardise: Literal["none", "scalar"] = "none"
    """Fitted scaling: one mean and deviation over all training samples (PTB-XL benchmark)."""

    centre: bool = False
    """Subtract the mean of each lead over the whole record first, so that no offset reaches the
    network; for backbones whose preparation does not."""


class Stage1(Table):
    """Linear probing: a new head on the frozen backbone."""

    epochs: Positive = 100
    """Passes over the training records; 100 in the paper."""
    crops: Positive = 1
    """Augmented crops per record; their features are computed once and cached."""
    batch_size: Positive = 256
    """Records per optimiser step."""
    base_lr: LearningRate = 1e-3
    """Learning rate per 256 samples; the default is ST-MEM's release."""
    base_lr_sweep: tuple[LearningRate, ...] = ()
    """Learning rates to try on the cached features; the best on validation is kept."""
    weight_decay: NonNegative = 0.05
    """Weight decay of the head, including its bias, as in ST-MEM."""
    warmup_epochs: NonNegative = 3
    """Epochs of linear warm-up."""
    min_lr: NonNegative = 0.0
    """Final learning rate of the cosine schedule."""
    betas: Betas = (0.9, 0.999)
    """AdamW beta coefficients."""
    head_init: HeadInit = "stock"
    """Initialisation of the head."""
    hand_on: Literal["best", "last"] = "best"
    """Head to keep: best validation macro AUROC (earliest on a tie), or the last."""


class Optimisation(Table):
    """Settings that fine-tuning and pretraining share; those without a default differ in it."""

    epochs: Positive
    batch_size: Positive
    base_lr: LearningRate
    warmup_epochs: NonNegative
    betas: Betas
    micro_batch: Positive | None = None
    """Records per forward pass; gradients are accumulated if it is smaller than the batch."""
    weight_decay: NonNegative = 0.05
    """Weight decay; the default is ST-MEM's release."""
    decay_exempt: Literal["none", "1d", "backbone"] = "none"
    """Parameters without weight decay: none (ST-MEM), all 1-D ones, or those that the publication
    of the backbone exempts."""
    min_lr: NonNegative = 0.0
    """Final learning rate of the cosine schedule."""
    part_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from the head, or the layers of an objective, to the backbone,
    and again to the first layers of the backbone (stem, embeddings); 1 is off, ECG-CPC uses 0.1."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm; no clipping by default, as in ST-MEM."""


class Stage2(Optimisation):
    """Full fine-tuning."""

    epochs: Positive = 50
    """Passes over the training records; 50 in the paper's curves, 10 in ST-MEM's release."""
    batch_size: Positive = 16
    """Records per optimiser step, over all processes and micro-batches."""
    drop_last: bool = True
    """Drop the incomplete last batch of an epoch, which has other records in every epoch."""
    optimiser: Literal["adamw", "adamax"] = "adamw"
    """AdamW with decoupled weight decay, or Adamax, which requires `weight_decay = 0`."""
    base_lr: LearningRate = 1e-3
    """Learning rate per 256 samples; the default is ST-MEM's release."""
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    """Learning rate schedule: linear warm-up and half a cosine, one cycle, or warm-up only."""
    one_cycle: Cycle | None = None
    """Shape of the one-cycle schedule; defaults as in the PTB-XL benchmark."""
    warmup_epochs: NonNegative = 3
    """Epochs of linear warm-up."""
    betas: Betas = (0.9, 0.999)
    """Beta coefficients of the optimiser; a one-cycle schedule replaces the first."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from a layer to the one below; 1 is off, MAE uses 0.75."""
    drop_path: Rate = 0.0
    """Stochastic depth on every residual branch; 0.1 in the paper."""
    drop_path_schedule: Literal["linear", "constant"] = "linear"
    """Drop rates over depth: rising from 0 in the first block to `drop_path`, or constant."""
    dropout: Rate = 0.0
    """Dropout rate; 0.01 in the feed-forward layers in the paper."""
    dropout_where: Literal["feed-forward", "stmem-all"] = "feed-forward"
    """Feed-forward layers only, or every dropout layer that ST-MEM's single option sets."""
    head_dropout: Rate = 0.0
    """Dropout before the head; for backbones without feed-forward layers."""
    head_init: HeadInit = "stock"
    """Initialisation of the head if there is no stage 1."""
    head_bias: Literal["stock", "prior"] = "stock"
    """Biases of the head if there is no stage 1: as set by `head_init`, or the log odds of the
    share of each label in the training records, so that the first steps need not learn them."""
    freeze_positions: bool = False
    """Freeze position embeddings; ST-MEM trains them."""
    freeze_extractor: bool = False
    """Freeze the convolutional feature extractor, as the releases of HuBERT-ECG and ECG-FM do."""
    select: Literal["best", "last", "lowest-loss"] = "best"
    """Epoch to keep: best validation macro AUROC (paper), the last, or lowest validation loss."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Stage2:
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide batch_size {self.batch_size}"
            )
        if self.micro_batch not in (None, self.batch_size) and not self.drop_last:
            raise ValueError(
                f"drop_last = false with micro_batch {self.micro_batch}: an incomplete batch "
                "cannot be accumulated"
            )
        if self.optimiser == "adamax" and self.weight_decay:
            raise ValueError(
                f"optimiser = adamax with weight_decay = {self.weight_decay:g}: it would be added "
                "to the gradient; set weight_decay = 0"
            )
        if self.part_decay != 1 and self.layer_decay != 1:
            raise ValueError(
                f"part_decay = {self.part_decay:g} with layer_decay = {self.layer_decay:g}: set "
                "one of the two"
            )
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> Stage2:
        """Refuse keys of the other schedules, which would have no effect."""
        if self.schedule == "constant" and self.min_lr:
            raise ValueError(f"min_lr = {self.min_lr:g} has no effect with schedule = constant")
        if self.schedule != "one-cycle":
            if self.one_cycle is not None:
                raise ValueError(f"one_cycle has no effect with schedule = {self.schedule}")
            return self
        defaults = Stage2.model_fields
        for key, other in (("warmup_epochs", "warmup_share"), ("min_lr", "end_divisor")):
            if (value := getattr(self, key)) != defaults[key].default:
                raise ValueError(
                    f"{key} = {value:g} with schedule = one-cycle; set one_cycle.{other}"
                )
        first = (self.one_cycle or Cycle()).momentum[0]
        if self.betas[0] not in (first, defaults["betas"].default[0]):
            raise ValueError(
                f"betas = {list(self.betas)} with schedule = one-cycle, which starts at a first "
                f"beta of {first:g}; set one_cycle.momentum"
            )
        return self


class Recipe(Table):
    """Recipe of post-training."""

    name: str
    """Recipe name, shown in reports."""
    description: str = ""
    """One-line description."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of batches, crops, heads and dropout."""
    initialise: Literal["pretrained", "random"] = "pretrained"
    """Initialisation of the backbone."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Forward-pass precision; `auto` uses bf16 on a GPU and fp32 on a CPU."""
    data: Data = Data()
    """Preparation of records and batches."""
    stage1: Stage1 | None = None
    """Linear probing; without it fine-tuning starts from a new head."""
    stage2: Stage2 | None = None
    """Full fine-tuning; without it only the head is trained."""

    @model_validator(mode="after")
    def _check_stages(self) -> Recipe:
        if self.stage1 is None and self.stage2 is None:
            raise ValueError("neither stage1 nor stage2: nothing would be trained")
        if self.initialise == "random" and self.stage1 is not None:
            raise ValueError("stage1 needs a pretrained backbone, but initialise = random")
        if self.stage1 and self.stage2 and self.stage2.head_bias != "stock":
            raise ValueError(
                f"stage2.head_bias = {self.stage2.head_bias} with a stage 1, which already trains "
                "the biases of the head"
            )
        if self.initialise == "pretrained" and self.data.standardise != "none":
            raise ValueError(
                f"data.standardise = {self.data.standardise} would change the scale that the "
                "backbone was pretrained on"
            )
        return self


_SECTIONS: dict[str | int, type[BaseModel]] = {
    "data": Data,
    "stage1": Stage1,
    "stage2": Stage2,
    "one_cycle": Cycle,
}


class CohortShare(Table):
    """Cohort of a pretraining recipe."""

    path: str
    """PTB-XL's folder, a table, or a folder of ECG files, as on the command line."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of every epoch, relative to the other cohorts; default: by number of records."""
    store: str | None = None
    """Folder of the packed cohort; default: in the cache folder."""


class Pretraining(Optimisation):
    """Recipe of pretraining."""

    name: str
    """Recipe name."""
    description: str = ""
    """One-line description."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, batches, crops and masks."""
    objective: str = "mae"
    """Objective: `mae` (masked reconstruction), `cpc` (contrastive predictive coding), `cmsc` and
    `wav2vec2` (the two parts of ECG-FM), or `ecg_fm` (both)."""
    options: dict[str, Option] = Field(default_factory=dict)
    """Options of the objective, such as `mask_ratio` or `preset`; see its module."""
    crop_seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of crops; default: the window of the backbone."""
    epochs: Positive = 800
    """Passes over the training records; for a mixture, as many draws as it has records."""
    batch_size: Positive = 4096
    """Records per optimiser step, over all processes and micro-batches."""
    base_lr: LearningRate = 1.5e-4
    """Learning rate per 256 samples."""
    warmup_epochs: NonNegative = 40
    """Epochs of linear warm-up."""
    betas: Betas = (0.9, 0.95)
    """AdamW beta coefficients."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Forward-pass precision; `auto` uses bf16 on a GPU and fp32 on a CPU."""
    keep_every: Positive | None = None
    """Keep the encoder of every n-th epoch in `snapshots/epoch-0010` and so on."""
    keep_last: Annotated[int, Field(ge=0)] = 0
    """Number of latest epochs whose encoders are kept."""
    keep_best: bool = False
    """Keep the encoder with the lowest validation loss."""
    cohorts: tuple[CohortShare, ...] = ()
    """Cohorts to pretrain on if the command line has none."""

    @model_validator(mode="after")
    def _check_weights(self) -> Pretraining:
        if len({share.weight is None for share in self.cohorts}) > 1:
            raise ValueError("only some cohorts have a weight")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `cohorts` is left out, because run.json describes the cohorts itself."""
        return self.model_dump(mode="json", exclude={"cohorts"})


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a post-training recipe: the name of a preset or a TOML file.

    `overrides` are assignments such as `stage2.drop_path=0.2`, in TOML; strings may be unquoted.

    Raises
    ------
    RecipeError
        If the recipe or a key is unknown, a type is wrong, or a combination is impossible.
    """
    return _load(Recipe, name, overrides)


def load_pretraining(name: str | Path, overrides: Sequence[str] = ()) -> Pretraining:
    """Read a pretraining recipe: the name of a preset, such as `mae`, or a TOML file."""
    return _load(Pretraining, name, overrides)


def recipe_names(kind: type[BaseModel] = Recipe) -> list[str]:
    """Presets of a kind: general ones, those of one network, and those of a folder
    (`folder/name`)."""
    if kind is Pretraining:
        return sorted(file.stem for file in (RECIPES / _PRETRAINING).glob("*.toml"))
    general = sorted(file.stem for file in (RECIPES / _GENERAL).glob("*.toml"))
    networks = sorted(file.stem for file in RECIPES.glob("*.toml"))
    folders = sorted(
        f"{file.parent.name}/{file.stem}"
        for file in RECIPES.glob("*/*.toml")
        if file.parent.name not in (_PRETRAINING, _GENERAL)
    )
    return general + networks + folders


def recipe_for(backbone: str, name: str | Path | None = None) -> str | Path:
    """Name of the recipe to use for a backbone.

    `post-training`, `fine-tuning`, `linear-probe` and `scratch` are replaced by those with settings
    for the backbone, if there are any, so that the four differ in nothing else. The default is the
    recipe of a network that is trained for the task from random weights, and `post-training` for
    all others.
    """
    catalogue_entry = entry(backbone)
    recipe = name or catalogue_entry.recipe or "post-training"
    specific = f"{catalogue_entry.recipes}/{recipe}"
    return specific if specific in recipe_names(Recipe) else recipe


def prepared_alike(recipe: Recipe, *, centred: bool) -> Recipe:
    """Recipe that subtracts lead means if the initial model does (`centred`), unless the recipe
    sets `data.centre` itself."""
    if not centred or "centre" in recipe.data.model_fields_set:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"centre": True})})


def _load(kind: type[M], name: str | Path, overrides: Sequence[str]) -> M:
    table = _read(kind, name)
    stages = {key for key in _STAGES if key in table}
    for override in overrides:
        _merge(table, _assignment(override))
    if stages and (added := {key for key in _STAGES if key in table} - stages):
        raise RecipeError(
            f"recipe {name} has no [{' or ['.join(sorted(added))}], and --set would add it",
            remedy="choose a recipe that has this stage, or write one (.toml)",
        )
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(_describe(kind, details) for details in error.errors())
        raise RecipeError(
            f"recipe {name}: {problems}",
            remedy="correct the recipe or the --set option; docs/recipes.md lists every key",
        ) from error


def _read(kind: type[BaseModel], name: str | Path) -> Json:
    file = Path(name)
    if file.suffix != ".toml":
        if str(name) not in recipe_names(kind):
            raise RecipeError(
                f"unknown recipe {str(name)!r}",
                remedy=f"choose {', '.join(recipe_names(kind))}, or a .toml file",
            )
        general = RECIPES / (_PRETRAINING if kind is Pretraining else _GENERAL) / f"{name}.toml"
        file = general if general.is_file() else RECIPES / f"{name}.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{file} is missing", remedy="name an existing .toml file") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"{file} is not valid TOML: {error}", remedy="correct that line"
        ) from error


def _assignment(override: str) -> Json:
    """Parse `stage2.drop_path=0.2` as TOML; a value that is not TOML is a string."""
    key, equals, value = override.partition("=")
    for text in (override, f"{key}{equals}{json.dumps(value.strip())}"):
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
    raise RecipeError(
        f"--set {override!r} is not an assignment", remedy="write --set stage2.drop_path=0.2"
    )


def _merge(table: Json, changes: Json) -> None:
    """Write changes into a table, key by key."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            _merge(table[key], value)
        else:
            table[key] = value


def _describe(kind: type[BaseModel], details: Any) -> str:
    place = ".".join(map(str, details["loc"])) or "recipe"
    if details["type"] == "extra_forbidden":
        *sections, last = details["loc"]
        table = _SECTIONS.get(sections[-1]) if sections else kind
        near = get_close_matches(str(last), table.model_fields if table else (), n=1)
        suggestion = ".".join(map(str, [*sections, *near]))
        return f"unknown key {place}" + (f" (did you mean {suggestion}?)" if near else "")
    return f"{place} = {details.get('input')!r}: {details['msg']}"
