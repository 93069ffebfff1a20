"""Recipes: TOML files, checked before any data are read.

Each key is one open point of a published method, with its default and its alternatives. Defaults
are those of Na et al. 2024 for ST-MEM, and of arXiv 2509.12991 for the two stages. Keys that only
the networks of the PTB-XL benchmark need (Strodthoff et al. 2021) are off by default.
"""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from operator import not_
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from einthoven.backbones.classifier import HeadInit, HeadKind
from einthoven.backbones.config import Share
from einthoven.backbones.inference import Aggregate, Precision
from einthoven.backbones.registry import entry
from einthoven.errors import RecipeError
from einthoven.files import Json, read_toml
from einthoven.training.optim import Cycle, OptimiserName, Toml

log = logging.getLogger(__name__)

RECIPES = Path(__file__).resolve().parent / "recipes"
_GENERAL, _PRETRAINING = "st-mem", "pretraining"
_STAGES = ("stage1", "stage2")
GENERAL = ("post-training", "fine-tuning", "linear-probe", "scratch")
"""Names that stand for the recipe of a backbone, or for ST-MEM's if it has none."""

Positive = Annotated[int, Field(gt=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
NonNegative = Annotated[float, Field(ge=0)]
Betas = tuple[Share, Share]

Option = bool | int | float | str | tuple[int | float, ...]
M = TypeVar("M", bound=Toml)


class Data(Toml):
    """Preparation of records and batches."""

    crop_seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of training and evaluation crops; default: the window of the backbone."""
    short: Literal["leave-out", "pad"] = "leave-out"
    """Records shorter than a crop: left out and counted, or zeros are added at their end."""
    augmentation: Literal["none", "rand-augment", "rand-augment-no-flip", "lead-mask"] = (
        "rand-augment"
    )
    """Augmentation of prepared training crops. ST-MEM: RandAugment, 2 of 8 at level 10; `no-flip`
    leaves out its change of sign."""
    augmentation_level: Annotated[float, Field(ge=0, le=10)] = 10
    """Strength of RandAugment; 0 changes nothing."""
    evaluation_crops: Positive | None = None
    """Evenly spaced evaluation crops per record; default: the number of the backbone."""
    aggregate: Aggregate = "probability"
    """Aggregation of crops: mean probability (ST-MEM), mean logit, or highest probability."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training records, by whole patients; nested and stratified."""
    standardise: Literal["none", "scalar"] = "none"
    """Fitted scaling: one mean and deviation over all training samples (PTB-XL benchmark)."""

    centre: bool = False
    """Subtract the mean of each lead over the whole record first, so that no offset reaches the
    network; for backbones whose preparation does not."""


class Stage1(Toml):
    """Linear probing: a new head on the frozen backbone."""

    solver: Literal["auto", "logistic", "adamw"] = "auto"
    """`logistic` solves a penalised logistic regression (multinomial for classes, ridge regression
    for numbers) to its optimum, and is what `auto` uses for up to 5,000 training records; `adamw`
    takes steps, as in the papers. `penalty` is a key of `logistic`, and the keys below it are those
    of `adamw`: setting one of them, in a file or with `--set`, decides `auto`."""
    penalty: Annotated[float, Field(gt=0)] | None = None
    """Penalty of the logistic regression; default: cross-validated on the training patients."""
    epochs: Positive = 100
    """Passes over the training records; 100 in the paper."""
    crops: Positive = 1
    """Random crops per record, one pass of the backbone each; all but the first are augmented."""
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
    batch_norm: bool = False
    """Batch norm without weights of its own in front of a linear head, as MAE's probe has; it is
    folded into the head afterwards."""
    head_init: HeadInit = "stock"
    """Initialisation of the head."""
    select: Literal["best", "last"] = "best"
    """Head to keep: best validation macro AUROC (earliest on a tie; of classes and numbers, lowest
    loss), or the last."""


class Optimisation(Toml):
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
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Term that the optimiser adds to its denominators."""


class Stage2(Optimisation):
    """Full fine-tuning."""

    epochs: Positive = 50
    """Passes over the training records; 50 in the paper's curves, 10 in ST-MEM's release."""
    batch_size: Positive = 16
    """Records per optimiser step, over all processes and micro-batches."""
    drop_last: bool = True
    """Drop the incomplete last batch of an epoch, which has other records in every epoch."""
    optimiser: OptimiserName = "adamw"
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
    drop_path: Share = 0.0
    """Stochastic depth on every residual branch; 0.1 in the paper."""
    drop_path_schedule: Literal["linear", "constant"] = "linear"
    """Drop rates over depth: rising from 0 in the first block to `drop_path`, or constant."""
    dropout: Share = 0.0
    """Dropout rate; 0.01 in the feed-forward layers in the paper."""
    dropout_where: Literal["feed-forward", "stmem-all"] = "feed-forward"
    """Feed-forward layers only, or every dropout layer that ST-MEM's single option sets."""
    head_dropout: Share = 0.0
    """Dropout before the head; for backbones without feed-forward layers."""
    head_init: HeadInit = "stock"
    """Initialisation of the head if there is no stage 1."""
    head_bias: Literal["stock", "prior"] = "stock"
    """Biases of the head if there is no stage 1: as set by `head_init`, or the log odds of the
    share of each label in the training records, so that the first steps need not learn them."""
    mixup: NonNegative = 0.0
    """Mixup: parameter of the beta distribution of the shares of two mixed records; 0 is off."""
    cutmix: NonNegative = 0.0
    """CutMix along time: that of the shares where a stretch is another record's; 0 is off. If both
    are on, each batch draws one of them."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay, per step, of the moving average of all weights and of the statistics of batch norm,
    which is validated and kept in place of the last weights; 0 is off. In the first steps the decay
    is smaller."""
    distillation: Share = 0.0
    """Self-distillation: the fine-tuned network becomes the teacher of a second one, which starts
    as it did. Share of the divergence from the teacher in the second one's loss; 0 is off, 0.7 is
    that of MTECG's release. Takes twice the time."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Divisor of the logits of both networks in the divergence."""
    freeze_positions: bool = False
    """Freeze position embeddings; ST-MEM trains them."""
    freeze_extractor: bool = False
    """Freeze the convolutional feature extractor, as the releases of HuBERT-ECG and ECG-FM do."""
    min_steps: Annotated[int, Field(ge=0)] = 0
    """Fewest optimiser steps; the batch, and with it the learning rate, is halved down to 8 records
    until there are as many."""
    select: Literal["auto", "best", "last", "lowest-loss"] = "best"
    """Epoch to keep: best validation macro AUROC (paper), the last, or lowest validation loss;
    `auto` is the loss where the labels have fewer than 10 positives (median) in validation. That of
    classes and numbers is the loss in either case."""
    keep: Literal["always", "better", "auto"] = "always"
    """Whether the fine-tuned network is kept in any case, or (`better`) only if its validation loss
    is lower than the probe's by more than the standard error of the difference. `auto` is `better`
    from 1,000 records on, and leaves stage 2 out with fewer; setting another key of [stage2], in a
    file or with `--set`, decides `auto`: `better`."""

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


class BaseRecipe(Toml):
    """Keys of every recipe."""

    name: str
    """Recipe name, shown in reports; default: the name of the file."""
    description: str = ""
    """One-line description."""
    extends: str = ""
    """Recipe that sets the keys a file leaves out: a name of `einthoven recipes`, or the path of a
    file; default: the recipe that suits the backbone."""
    seed: Seed = 0
    """Seed of weights, batches, crops, masks and dropout."""
    precision: Literal["auto", Precision] = "auto"
    """Forward-pass precision; `auto` uses bf16 on a GPU and fp32 on a CPU."""


class Recipe(BaseRecipe):
    """Recipe of post-training."""

    initialise: Literal["pretrained", "random"] = "pretrained"
    """Initialisation of the backbone."""
    head: HeadKind = "linear"
    """Head of both stages: one linear layer on the features, or the attention of one learned query
    over the tokens, with 16 heads. The probe of the latter has no closed solution and takes steps
    on the tokens of the frozen backbone, which are cached on disk until it ends."""
    data: Data = Data()
    """Preparation of records and batches."""
    stage1: Stage1 | None = None
    """Linear probing; without it fine-tuning starts from a new head."""
    stage2: Stage2 | None = None
    """Full fine-tuning; without it only the head is trained."""
    pos_weight: Literal["none", "balanced"] | tuple[Annotated[float, Field(gt=0)], ...] = "none"
    """Weight of the positives of each label, or of the records of each class, in the loss: none,
    `balanced` (negatives over positives; for classes the inverse of their frequency; none for
    numbers), or a list of numbers. A model's calibration undoes the shift of probabilities;
    uncalibrated ones keep it."""
    regression_loss: Literal["l2", "l1", "huber"] = "l2"
    """Loss of predicted numbers, in units of their standard deviation: squares, absolute values, or
    squares up to one standard deviation. The solved probe minimises Huber's loss for `l1`."""
    refit: Literal["never", "auto", "always"] = "never"
    """Train the final model again with the stage and the number of epochs that were selected on
    validation: a probe on training and validation records, a fine-tuned network on the training
    records, its rate falling to the end within these epochs. `auto` does if they are at most 2,000
    together."""

    @property
    def uses_validation(self) -> bool:
        """Whether validation records choose an epoch, a learning rate or a stage."""
        probe, tuning = self.stage1, self.stage2
        steps = probe if probe and probe.solver != "logistic" else None
        return bool(
            (steps and (steps.select == "best" or len(steps.base_lr_sweep) > 1))
            or (tuning and (tuning.select != "last" or (probe and tuning.keep != "always")))
        )

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
        if self.head == "query-attention":
            if self.stage1 and self.stage1.solver == "logistic":
                raise ValueError("stage1.solver = logistic solves a linear head: set adamw or auto")
            if self.stage1 and self.stage1.batch_norm:
                raise ValueError("stage1.batch_norm normalises the features of a linear head")
            if self.stage2 and self.stage2.head_bias != "stock":
                raise ValueError(
                    f"stage2.head_bias = {self.stage2.head_bias} with head = {self.head}, which "
                    "has no biases"
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


class CohortSource(Toml):
    """Cohort of a pretraining recipe, with its store."""

    path: str
    """Folder of a data set, a table, or a folder of ECG files, as on the command line."""
    share: Annotated[float, Field(gt=0)] | None = None
    """Share of every epoch, relative to the other cohorts; default: by number of records."""
    store: str | None = None
    """Folder of the packed cohort; default: in the cache folder."""


class Pretraining(BaseRecipe, Optimisation):
    """Recipe of pretraining."""

    objective: str = "mae"
    """Objective: `mae` (masked reconstruction), `cpc` (contrastive predictive coding), `jepa`,
    `data2vec`, `dinosr`, `sinkhorn_kmeans`, `hubert` (hidden tokens from the others), `cmsc` and
    `wav2vec2` (the two parts of ECG-FM), or `ecg_fm` (both)."""
    options: dict[str, Option] = Field(default_factory=dict)
    """Options of the objective, such as `mask_ratio` or `preset`; see its module."""
    crop_seconds: Annotated[float, Field(gt=0)] | None = None
    """Length of crops; default: the window of the backbone."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each cohort's training records, as whole patients drawn without labels; fractions of
    one seed are nested."""
    epochs: Positive = 800
    """Passes over the training records; for a mixture, as many draws as it has records."""
    steps: Positive | None = None
    """Optimiser steps, rounded to whole epochs, in place of `epochs`; warm-up keeps its share. For
    comparisons over different numbers of records."""
    batch_size: Positive = 4096
    """Records per optimiser step, over all processes and micro-batches."""
    base_lr: LearningRate = 1.5e-4
    """Learning rate per 256 samples."""
    warmup_epochs: NonNegative = 40
    """Epochs of linear warm-up."""
    betas: Betas = (0.9, 0.95)
    """AdamW beta coefficients."""
    keep_every: Positive | None = None
    """Keep the encoder of every n-th epoch in `snapshots/epoch-0010` and so on."""
    keep_last: Annotated[int, Field(ge=0)] = 0
    """Number of latest epochs whose encoders are kept."""
    keep_best: bool = False
    """Keep the encoder with the lowest validation loss."""
    cohorts: tuple[CohortSource, ...] = ()
    """Cohorts to pretrain on if the command line has none."""

    @model_validator(mode="after")
    def _check_shares(self) -> Pretraining:
        if len({source.share is None for source in self.cohorts}) > 1:
            raise ValueError("only some cohorts have a share")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `cohorts` is left out, because run.json describes the cohorts itself."""
        return self.model_dump(mode="json", exclude={"cohorts"})


def load_recipe(
    name: str | Path, overrides: Sequence[str] = (), *, backbone: str | None = None
) -> Recipe:
    """Read a post-training recipe: a shipped name, as for `recipe_for`, or a TOML file.

    A file without `extends` takes the keys that it leaves out from the recipe that suits the
    backbone and has the same stages; without a backbone, from the defaults of the keys. `overrides`
    are assignments such as `stage2.drop_path=0.2`, in TOML; strings may be unquoted.

    Raises
    ------
    RecipeError
        If the recipe or a key is unknown, a type is wrong, a combination is impossible, an override
        or a changed key has no effect, or a file extends itself.
    """
    return _load(Recipe, name, overrides, backbone)


def load_pretraining(
    name: str | Path, overrides: Sequence[str] = (), *, backbone: str | None = None
) -> Pretraining:
    """Read a pretraining recipe, as `load_recipe` does.

    A file without `extends` takes what it leaves out from the default recipe of the backbone, if
    that has the same objective.
    """
    return _load(Pretraining, name, overrides, backbone)


def recipe_names(kind: type[BaseModel] = Recipe) -> list[str]:
    """Presets of a kind: general ones, those of one network, and those of a folder
    (`folder/name`)."""
    if kind is Pretraining:
        return sorted(file.stem for file in (RECIPES / _PRETRAINING).glob("*.toml"))
    general = [*GENERAL]
    networks = sorted(file.stem for file in RECIPES.glob("*.toml"))
    folders = sorted(
        f"{file.parent.name}/{file.stem}"
        for file in RECIPES.glob("*/*.toml")
        if file.parent.name != _PRETRAINING
    )
    return general + networks + folders


def recipe_for(backbone: str | None, name: str | Path | None = None) -> str | Path:
    """Name of the recipe to use for a backbone; without one, the name itself.

    `post-training`, `fine-tuning`, `linear-probe` and `scratch` are replaced by those with settings
    for the backbone, if there are any, so that the four differ in nothing else. The default is the
    recipe of a network that is trained for the task from random weights, and `post-training` for
    all others.
    """
    if backbone is None:
        return name or "post-training"
    catalogue_entry = entry(backbone)
    recipe = name or catalogue_entry.recipe or "post-training"
    if not catalogue_entry.recipes:
        return recipe
    folder = RECIPES / catalogue_entry.recipes  # another package gives an absolute path
    if not folder.is_dir():
        raise RecipeError(
            f"the catalogue entry of {backbone} names a folder of recipes that does not exist: "
            f"{folder}",
            remedy="correct `recipes` of the entry, or leave it out",
        )
    file = folder / f"{recipe}.toml"
    if not file.is_file():
        return recipe
    return f"{folder.name}/{recipe}" if folder.is_relative_to(RECIPES) else file


def prepared_alike(recipe: Recipe, *, centred: bool) -> Recipe:
    """Recipe that subtracts lead means if the initial model does (`centred`), unless the recipe
    sets `data.centre` itself."""
    if not centred or "centre" in recipe.data.model_fields_set:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"centre": True})})


def _load(kind: type[M], name: str | Path, overrides: Sequence[str], backbone: str | None) -> M:
    table, changed_keys = _read(kind, name, backbone)
    stages = {key for key in _STAGES if key in table}
    changes: Json = {}
    for override in overrides:
        _merge(changes, assignment(override))
    if "extends" in changes:
        raise RecipeError(
            "`overrides=['extends']` has no effect",
            remedy="choose the recipe with `recipe=...`, or write a file",
        )
    _inherit(table, changes)
    if stages and (added := {key for key in _STAGES if key in table} - stages):
        raise RecipeError(
            f"recipe {name} has no [{'] or ['.join(sorted(added))}], and `overrides=...` would "
            "add it",
            remedy="choose a recipe that has this stage, or write one (.toml)",
        )
    try:
        recipe = kind.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(_describe(kind, details) for details in error.errors())
        raise RecipeError(
            f"recipe {name}: {problems}",
            remedy="correct the recipe or the key; docs/recipes.md lists every key",
        ) from error
    changed_keys |= set(dict(assignments(changes)))
    recipe = _with_stage2(_with_solver(recipe, changed_keys), changed_keys)
    _check_effects(recipe, changed_keys)
    return recipe


def _read(
    kind: type[BaseModel], name: str | Path, backbone: str | None, above: tuple[Path, ...] = ()
) -> tuple[Json, set[str]]:
    """Keys of a recipe with all that it extends, and the keys that its files change."""
    file = recipe_file(recipe_for(backbone, name), kind)
    if file.resolve() in above:
        raise RecipeError(
            f"{file} extends itself ({' > '.join(path.name for path in (*above, file))})",
            remedy="extend a shipped recipe: `einthoven recipes` lists them",
        )
    table = read_toml(file, RecipeError)
    is_shipped = file.is_relative_to(RECIPES)
    base: Json = {}
    changed_keys: set[str] = set()
    extended = table.get("extends") or ("" if is_shipped else _base(kind, backbone, table, file))
    if isinstance(extended, str) and extended:
        extended = str(recipe_for(backbone, extended))
        place = file.parent / extended if extended.endswith(".toml") else extended
        base, changed_keys = _read(kind, place, backbone, (*above, file.resolve()))
        table["extends"] = place.name if isinstance(place, Path) else extended
    if is_shipped:
        _inherit(base, table)
        return base, set()
    before = dict(assignments(base))
    changed_keys |= {key for key, value in assignments(table) if before.get(key) != value}
    _inherit(base, {"name": file.stem, "description": ""} | table)
    return base, changed_keys


def recipe_file(name: str | Path, kind: type[BaseModel] = Recipe) -> Path:
    """TOML file of a shipped recipe, or the path itself if it ends in `.toml`."""
    if Path(name).suffix == ".toml":
        return Path(name)
    if str(name) not in recipe_names(kind):
        near = get_close_matches(str(name), recipe_names(kind), n=1)
        raise RecipeError(
            f"unknown recipe {str(name)!r}" + (f" (did you mean {near[0]}?)" if near else ""),
            remedy="choose one of `einthoven recipes`, or a .toml file",
        )
    folder = _PRETRAINING if kind is Pretraining else _GENERAL if name in GENERAL else ""
    return RECIPES / folder / f"{name}.toml"


def _base(kind: type[BaseModel], backbone: str | None, table: Json, file: Path) -> str:
    """Recipe that a file of a user extends by default; none for a backbone's own recipe."""
    if backbone is None:
        return ""
    registered = entry(backbone)
    own = (
        RECIPES / path
        for path in (registered.recipe, registered.pretraining_recipe, registered.recipes)
    )
    return "" if {file, file.parent} & {*own} else _suited(kind, backbone, table)


def _suited(kind: type[BaseModel], backbone: str, table: Json) -> str:
    """Recipe of a backbone with the stages, or the objective, of a table."""
    if kind is Pretraining:
        name = entry(backbone).pretraining_recipe
        objective = load_pretraining(name).objective
        return name if table.get("objective", objective) == objective else ""
    start, stages = table.get("initialise"), [key for key in _STAGES if key in table]
    if entry(backbone).recipe and start != "pretrained" and "stage1" not in stages:
        return str(recipe_for(backbone))
    if start == "random":
        return "scratch"
    return {"stage1": "linear-probe", "stage2": "fine-tuning"}.get("".join(stages), "post-training")


_STEPS = {f"stage1.{key}" for key in Stage1.model_fields} - {
    "stage1.solver", "stage1.penalty"
}  # fmt: skip


def _with_solver(recipe: M, changed: set[str]) -> M:
    """Replace the solver `auto` of stage 1 by the one to which a key that a user sets belongs."""
    stage1: Stage1 | None = getattr(recipe, "stage1", None)
    if stage1 is None or stage1.solver != "auto":
        return recipe
    for solver, keys in (("adamw", _STEPS), ("logistic", {"stage1.penalty"})):
        if decisive := sorted(changed & keys):
            log.info("policy: stage1.solver = %s (%s is set)", solver, decisive[0])
            decided = stage1.model_copy(update={"solver": solver})
            return recipe.model_copy(update={"stage1": decided})
    return recipe


def _with_stage2(recipe: M, changed: set[str]) -> M:
    """Replace the value `auto` of `stage2.keep`, which may leave out a stage whose keys are set."""
    stage2: Stage2 | None = getattr(recipe, "stage2", None)
    keys = sorted(key for key in changed if key.startswith("stage2."))
    if stage2 is None or stage2.keep != "auto" or not keys or "stage2.keep" in keys:
        return recipe
    log.info("policy: stage2.keep = better (%s is set)", keys[0])
    return recipe.model_copy(update={"stage2": stage2.model_copy(update={"keep": "better"})})


# A key, the key that overrules it, the values of that key which do, and the remedy.
_OVERRULED: tuple[tuple[str, str, Callable[[Any], bool], str], ...] = (
    *((key, "stage1.solver", "logistic".__eq__, "set stage1.solver=adamw")
      for key in sorted(_STEPS)),
    ("stage1.penalty", "stage1.solver", "adamw".__eq__, "set stage1.solver=logistic"),
    ("stage1.penalty", "head", "query-attention".__eq__, "set head=linear"),
    ("stage1.base_lr", "stage1.base_lr_sweep", bool, "set stage1.base_lr_sweep=[]"),
    ("stage2.keep", "stage1", not_, "choose a recipe with a stage 1"),
    ("stage2.head_init", "stage1.head_init", bool, "set stage1.head_init"),
    ("stage2.warmup_epochs", "stage2.schedule", "one-cycle".__eq__, "set one_cycle.warmup_share"),
    ("stage2.min_lr", "stage2.schedule", "cosine".__ne__, "choose the schedule cosine"),
    ("stage2.drop_path_schedule", "stage2.drop_path", not_, "set stage2.drop_path"),
    ("stage2.temperature", "stage2.distillation", not_, "set stage2.distillation"),
    ("stage2.dropout_where", "stage2.dropout", not_, "set stage2.dropout"),
    ("stage2.decay_exempt", "stage2.weight_decay", not_, "set stage2.weight_decay"),
    ("decay_exempt", "weight_decay", not_, "set weight_decay"),
    ("epochs", "steps", bool, "leave out steps"),
    ("data.augmentation_level", "data.augmentation", {"none", "lead-mask"}.__contains__,
     "set data.augmentation=rand-augment"),
    ("data.aggregate", "data.evaluation_crops", lambda crops: crops == 1,
     "set data.evaluation_crops"),
)  # fmt: skip


def keys_without_effect(recipe: Recipe) -> list[str]:
    """Keys of a recipe that others overrule, such as those of AdamW for a logistic regression."""
    values = dict(assignments(recipe.to_dict()))
    overruled = {
        key
        for key, other, overrules, _ in _OVERRULED
        if key in values and other in values and overrules(values[other])
    }
    stage1 = recipe.stage1
    if recipe.stage2 is None and stage1 and (stage1.solver == "logistic" or stage1.crops == 1):
        # Evaluation crops alone, or the one that is not augmented.
        overruled |= {"data.augmentation", "data.augmentation_level"}
    return sorted(overruled)


def _check_effects(recipe: Toml, changed_keys: set[str]) -> None:
    """Refuse a key that a user sets and another key overrules."""
    values = dict(assignments(recipe.to_dict()))
    for key, other, overrules, remedy in _OVERRULED:
        if key in changed_keys and other in values and overrules(values[other]):
            raise RecipeError(
                f"{key} has no effect with {other} = {values[other]}",
                remedy=f"leave it out, or {remedy}",
            )


def assignments(table: Json, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of nested tables, as `stage2.epochs` and its value."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from assignments(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _inherit(base: Json, changes: Json) -> None:
    """Write changes into the table that they extend; another schedule has its own defaults."""
    old, new = base.get("stage2"), changes.get("stage2")
    if isinstance(old, dict) and isinstance(new, dict):
        before = old.get("schedule", "cosine")
        if new.get("schedule", before) != before:
            for key in ("one_cycle", "warmup_epochs", "min_lr"):
                old.pop(key, None)
    _merge(base, changes)


def assignment(override: str) -> Json:
    """Parse `stage2.drop_path=0.2` as TOML; a value that is not TOML is a string."""
    key, equals, value = override.partition("=")
    for text in (override, f"{key}{equals}{json.dumps(value.strip())}"):
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
    raise RecipeError(
        f"`overrides={[override]}` is not an assignment",
        remedy=f"write `overrides={[(key.strip() or 'KEY') + '=VALUE']}`",
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
