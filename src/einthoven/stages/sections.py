"""The sections of a post-training recipe; every key is one open point of a published method.

Defaults and their alternatives are those of Na et al. 2024 for ST-MEM's own settings, and of
arXiv 2509.12991 for the two stages. Keys that only networks of the PTB-XL benchmark need
(Strodthoff et al. 2021) are off by default.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Data", "OneCycleTable", "Stage1", "Stage2", "Table"]

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
NonNegative = Annotated[float, Field(ge=0)]
Divisor = Annotated[float, Field(ge=1)]
Betas = tuple[Rate, Rate]
HeadInit = Literal["stock", "zero", "normal-0.01", "kaiming-normal", "glorot-uniform"]


class Table(BaseModel):
    """A checked table of a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    younger: ClassVar[tuple[str, ...]] = ()
    unasked: ClassVar[tuple[str, ...]] = ()

    def asked(self) -> dict[str, Any]:
        """What a run that goes on has to repeat.

        Keys in `unasked` are left out, and those that are `younger` than some runs where they are
        at their default: such a run goes on, and counts as done, with a later version.
        """
        found = {}
        for key, value in self.model_dump(mode="json", exclude=set(self.unasked)).items():
            own = getattr(self, key)
            if key not in self.younger or own != type(self).model_fields[key].default:
                found[key] = own.asked() if isinstance(own, Table) else value
        return found


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

    younger: ClassVar[tuple[str, ...]] = ("standardise", "centre")


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

    younger: ClassVar[tuple[str, ...]] = (
        *("drop_last", "optimiser", "schedule", "one_cycle"),
        *("freeze_extractor", "part_decay", "head_bias"),
    )

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
