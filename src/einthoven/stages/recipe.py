"""Recipes: TOML files, checked before any data are read.

Each key is one open point of a published method, with its default and its alternatives. Defaults
are those of Na et al. 2024 for ST-MEM, and of arXiv 2509.12991 for the two stages. Keys that only
networks of the PTB-XL benchmark need (Strodthoff et al. 2021) are off by default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from einthoven.errors import RecipeError

RECIPES = Path(__file__).resolve().parent / "recipes"
_GENERAL, _PRETRAINING = "post-training", "pretraining"
_STAGES = ("stage1", "stage2")

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
NonNegative = Annotated[float, Field(ge=0)]
Divisor = Annotated[float, Field(ge=1)]
Betas = tuple[Rate, Rate]
HeadInit = Literal["stock", "zero", "normal-0.01", "kaiming-normal", "glorot-uniform"]

Option = bool | int | float | str | tuple[float, ...]
M = TypeVar("M", bound=BaseModel)


class Table(BaseModel):
    """A checked table of a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as run.json keeps them."""
        return self.model_dump(mode="json")


class Data(Table):
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
    standardise: Literal["none", "scalar"] = "none"
    """Scaling that is measured: one mean and deviation of all training samples (the benchmark)."""

    centre: bool = False
    """Take each lead's mean over the whole record out first, so that no offset reaches the network;
    for backbones whose own preparation leaves it in."""


class Stage1(Table):
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
    head_init: HeadInit = "stock"
    """Start of the head."""
    hand_on: Literal["best", "last"] = "best"
    """Which head goes on: best validation macro AUROC (earliest on a tie), or the last."""


class OneCycleTable(Table):
    """Shape of the one-cycle schedule: cosines up to the peak and down from it, every step."""

    warmup_share: Rate = 0.3
    """Share of all steps in which the rate rises; in the rest it falls."""
    start_divisor: Divisor = 25.0
    """The first rate is the peak over this."""
    end_divisor: Divisor = 250_000.0
    """The last rate is the peak over this."""
    momentum: tuple[Rate, Rate, Rate] = (0.95, 0.85, 0.95)
    """The first beta at the start, at the peak and at the end, by the same cosines."""


class Stage2(Table):
    """Full fine-tuning."""

    epochs: Positive = 50
    """The paper's validation curves show 50; ST-MEM's release has 10."""
    batch_size: Positive = 16
    """Records an optimiser step sees, over all processes and micro-batches."""
    micro_batch: Positive | None = None
    """Records a forward pass sees; smaller than the batch accumulates gradients."""
    drop_last: bool = True
    """Leave an epoch's incomplete last batch out; it has other records in every epoch."""
    optimiser: Literal["adamw", "adamax"] = "adamw"
    """AdamW decays weights apart from the gradient; Adamax takes no weight decay here."""
    base_lr: LearningRate = 1e-3
    """Learning rate per 256 samples; ST-MEM's released setting."""
    weight_decay: NonNegative = 0.05
    """ST-MEM's released setting."""
    decay_exempt: Literal["none", "1d", "backbone"] = "none"
    """Tensors without weight decay: none (ST-MEM), all 1-D ones, or those its source exempts."""
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    """Of the learning rate: linear warm-up and half a cosine, one cycle, or warm-up only."""
    one_cycle: OneCycleTable | None = None
    """Shape of the one-cycle schedule; its defaults are those of the PTB-XL benchmark."""
    warmup_epochs: NonNegative = 3
    """Linear warm-up."""
    min_lr: NonNegative = 0.0
    """End of the cosine."""
    betas: Betas = (0.9, 0.999)
    """The optimiser's; with one cycle the first is the cycle's."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from a layer to the one below it; 1 is off, MAE takes 0.75."""
    part_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from the head to the backbone, and again to the backbone's first
    layers (stem, embeddings); 1 is off, ECG-CPC takes 0.1."""
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
    head_init: HeadInit = "stock"
    """Start of the head when there is no stage 1."""
    head_bias: Literal["stock", "prior"] = "stock"
    """Biases of a head without a stage 1: as `head_init` has them, or at the log odds of every
    label's share of the training records, so that the first steps need not learn it."""
    freeze_positions: bool = False
    """Keep position embeddings as pretrained; ST-MEM trains them."""
    freeze_extractor: bool = False
    """Keep the convolutions in front as pretrained, as HuBERT-ECG's and ECG-FM's releases do."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm; ST-MEM clips nothing."""
    select: Literal["best", "last", "lowest-loss"] = "best"
    """Which epoch is kept: best validation macro AUROC (the paper), the last, or lowest loss."""

    @model_validator(mode="after")
    def _batches_hold_together(self) -> Stage2:
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide batch_size {self.batch_size}"
            )
        if self.micro_batch not in (None, self.batch_size) and not self.drop_last:
            raise ValueError(
                f"drop_last = false with micro_batch {self.micro_batch}: an incomplete batch is "
                "not accumulated"
            )
        return self

    @model_validator(mode="after")
    def _decay_is_decoupled(self) -> Stage2:
        if self.optimiser == "adamax" and self.weight_decay:
            raise ValueError(
                f"optimiser = adamax with weight_decay = {self.weight_decay:g}: it would be mixed "
                "into the gradient; set weight_decay = 0"
            )
        return self

    @model_validator(mode="after")
    def _rates_hold_together(self) -> Stage2:
        if self.part_decay != 1 and self.layer_decay != 1:
            raise ValueError(
                f"part_decay = {self.part_decay:g} with layer_decay = {self.layer_decay:g}: set "
                "one of the two"
            )
        return self

    @model_validator(mode="after")
    def _schedule_holds_together(self) -> Stage2:
        if self.schedule != "one-cycle" and self.one_cycle is not None:
            raise ValueError(f"one_cycle is given, and schedule = {self.schedule}")
        if self.schedule == "constant" and self.min_lr:
            raise ValueError(f"min_lr = {self.min_lr:g} ends a cosine, and schedule = constant")
        if self.schedule == "one-cycle":
            self._one_cycle_decides()
        return self

    def _one_cycle_decides(self) -> None:
        """Refuse keys of the other schedules, which would change nothing."""
        instead = {
            "warmup_epochs": "one_cycle.warmup_share",
            "min_lr": "one_cycle.end_divisor",
        }
        for key, other in instead.items():
            if (value := getattr(self, key)) != type(self).model_fields[key].default:
                raise ValueError(f"{key} = {value:g} with schedule = one-cycle; set {other}")
        first = (self.one_cycle or OneCycleTable()).momentum[0]
        if self.betas[0] not in (first, type(self).model_fields["betas"].default[0]):
            raise ValueError(
                f"betas = {list(self.betas)} with schedule = one-cycle, which starts at a first "
                f"beta of {first:g}; set one_cycle.momentum"
            )


class Recipe(Table):
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
        if self.stage1 and self.stage2 and self.stage2.head_bias != "stock":
            raise ValueError(
                f"stage2.head_bias = {self.stage2.head_bias} with a stage 1, which hands its head "
                "on, biases included"
            )
        if self.initialise == "pretrained" and self.data.standardise != "none":
            raise ValueError(
                f"data.standardise = {self.data.standardise} would give a pretrained backbone "
                "another scale than the one that it was pretrained on"
            )
        return self


class CohortShare(Table):
    """One of several cohorts that a pretraining recipe names."""

    path: str
    """As on the command line: PTB-XL's folder, a table, or a folder of ECG files."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Its share of every epoch, in ratio to the others'; by its number of records without it."""
    store: str | None = None
    """The packed cohort; made in the cache folder without it."""


class Pretraining(Table):
    """How a backbone is pretrained."""

    name: str
    """Of the recipe."""
    description: str = ""
    """One line."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What weights, batches, crops and masks are drawn from."""
    objective: str = "mae"
    """What is learned: `mae` (masked reconstruction), `cpc` (contrastive predictive coding), or
    ECG-FM's `cmsc`, `wav2vec2`, and both of these together, `ecg_fm`."""
    options: dict[str, Option] = Field(default_factory=dict)
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
    part_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from the objective's own layers to the backbone, and again to the
    backbone's first layers (stem, embeddings); 1 is off, ECG-CPC takes 0.1."""
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `cohorts` is left out, because run.json describes the cohorts itself."""
        return self.model_dump(mode="json", exclude={"cohorts"})


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a post-training recipe: a preset's name or a TOML file.

    Parameters
    ----------
    name : str or path
        `post-training`, `fine-tuning`, `linear-probe`, `scratch`, a network's own (`strodthoff`,
        `multiresnet`, ...), or a `.toml` file.
    overrides : sequence of str
        `stage2.drop_path=0.2`, in TOML's notation; strings may go without quotes.

    Raises
    ------
    RecipeError
        For an unknown recipe or key, a wrong type, or an impossible combination.
    """
    return _checked(Recipe, name, overrides)


def prepared_alike(recipe: Recipe, *, centred: bool) -> Recipe:
    """A recipe that takes leads' means out where the network to start from knows none; one that
    says something of `data.centre` itself stays as it is."""
    if not centred or "centre" in recipe.data.model_fields_set:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"centre": True})})


def load_pretraining(name: str | Path, overrides: Sequence[str] = ()) -> Pretraining:
    """Read a pretraining recipe: the name of a preset, such as `mae`, or a TOML file.

    Raises
    ------
    RecipeError
        As `load_recipe`.
    """
    return _checked(Pretraining, name, overrides)


def recipe_names(kind: type[BaseModel] = Recipe) -> list[str]:
    """Presets of a kind: `post-training`, ..., a network's own (`strodthoff`, ...), and those of an
    experiment, `folder/name`."""
    if kind is Pretraining:
        return sorted(file.stem for file in (RECIPES / _PRETRAINING).glob("*.toml"))
    general = sorted(file.stem for file in (RECIPES / _GENERAL).glob("*.toml"))
    networks = sorted(file.stem for file in RECIPES.glob("*.toml"))
    experiments = sorted(
        f"{file.parent.name}/{file.stem}"
        for file in RECIPES.glob("*/*.toml")
        if file.parent.name not in (_PRETRAINING, _GENERAL)
    )
    return general + networks + experiments


def _checked(kind: type[M], name: str | Path, overrides: Sequence[str]) -> M:
    table = _read(kind, name)
    stages = {key for key in _STAGES if key in table}
    for override in overrides:
        _apply(table, override)
    if stages and (added := {key for key in _STAGES if key in table} - stages):
        raise RecipeError(
            f"recipe {name} has no [{' or ['.join(sorted(added))}], and --set would give it one",
            remedy="choose a recipe that has this stage, or write one (.toml)",
        )
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(_describe(kind, entry) for entry in error.errors())
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
        general = RECIPES / (_PRETRAINING if kind is Pretraining else _GENERAL) / f"{name}.toml"
        file = general if general.is_file() else RECIPES / f"{name}.toml"
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


def _describe(kind: type[BaseModel], entry: Any) -> str:
    where = ".".join(str(part) for part in entry["loc"]) or "recipe"
    if entry["type"] == "extra_forbidden":
        *sections, last = entry["loc"]
        near = get_close_matches(str(last), _keys(kind, sections), n=1)
        meant = ".".join(map(str, [*sections, *near]))
        return f"unknown key {where}" + (f" (did you mean {meant}?)" if near else "")
    return f"{where} = {entry.get('input')!r}: {entry['msg']}"


def _keys(kind: type[BaseModel], sections: Sequence[Any]) -> list[str]:
    """Keys of a section of a recipe; none of one that is not known."""
    for section in sections:
        known = kind.model_fields.get(section)
        inside = [known.annotation, *get_args(known.annotation)] if known else []
        tables = [each for each in inside if isinstance(each, type) and issubclass(each, BaseModel)]
        if not tables:
            return []
        kind = tables[0]
    return list(kind.model_fields)
