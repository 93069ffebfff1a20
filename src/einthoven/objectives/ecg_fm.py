"""ECG-FM's pretraining: masked contrastive prediction, two halves of a recording, masked leads.

McKeen et al., "ECG-FM", JAMIA Open 8(5) 2025, after Oh et al., "Lead-agnostic self-supervised
learning for local and global representations of electrocardiogram", CHIL 2022. Three ideas at once:

* wav2vec 2.0: hide spans of tokens and tell the quantised target of each from those of others;
* contrastive multi-segment coding: the mean of a segment's tokens, some of them hidden, should be
  nearer to that of the other half of the recording than to any other recording's;
* random lead masking: every lead of every segment is zero with probability one half.

Segments of a pair come from one window, cut in two: take ``crop_seconds = 10`` for the published
pairs of 5 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import dropout

from einthoven.backbones.contract import Backbone
from einthoven.backbones.ecg_fm import ECGFM, scaled_gradient
from einthoven.backbones.layers.wav2vec import PostNormBlock
from einthoven.errors import BackboneError, RecipeError, validated
from einthoven.objectives.cmsc import (
    cmsc_loss,
    half_of,
    halves,
    mask_leads,
    retrieval,
    segments_of_batch,
)
from einthoven.objectives.objective import ObjectiveOutput, with_options
from einthoven.objectives.quantiser import GumbelQuantiser
from einthoven.objectives.wav2vec2 import (
    contrastive_logits,
    contrastive_loss,
    draw_spans,
    hidden_tokens,
    other_positions,
)
from einthoven.signals.augment import Probability
from einthoven.signals.random import integers


@validated("ecg_fm", RecipeError)
class WCRConfig:
    """Masking, comparisons and weights of the parts.

    Attributes
    ----------
    mask_probability, mask_length : float, int
        Parameters of `einthoven.objectives.wav2vec2.draw_spans`.
    negatives : int
        Other hidden tokens of the same segment that a target competes with.
    temperature : float
        Temperature of the contrastive scores.
    codes, code_groups, target_width : int
        Codes and groups of the quantiser, and width of the vectors that are compared.
    code_temperature : tuple of float
        Start, end and factor a training step of the quantiser's temperature.
    diversity_weight, penalty_weight, cmsc_weight : float
        Weights of the diversity loss, of the mean square of the extractor's output, and of the
        comparison of segments, relative to the contrastive loss. Without the last, windows stay
        whole.
    cmsc_temperature : float
        Temperature of the comparison of segments.
    lead_mask : float
        Probability with which a lead of a segment is zeroed in training.
    extractor_gradient : float
        Factor of the gradient that reaches the extractor, on top of the backbone's own.
    dropout : float
        Dropout rate of projection, embedding, attention, branches and targets in training.
    """

    mask_probability: float = 0.65
    mask_length: int = 10
    negatives: PositiveInt = 100
    temperature: PositiveFloat = 0.1
    codes: PositiveInt = 320
    code_groups: PositiveInt = 2
    target_width: PositiveInt = 256
    code_temperature: tuple[float, float, float] = (2.0, 0.5, 0.999995)
    diversity_weight: NonNegativeFloat = 0.1
    penalty_weight: NonNegativeFloat = 10.0
    cmsc_weight: NonNegativeFloat = 1.0
    cmsc_temperature: PositiveFloat = 0.1
    lead_mask: Probability = 0.5
    extractor_gradient: Probability = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        start, end, factor = self.code_temperature
        if not (0 < end <= start and 0 < factor <= 1):
            raise RecipeError(
                f"ecg_fm: code_temperature = {self.code_temperature!r}",
                remedy="use (start, end, factor) with start >= end > 0 and factor <= 1",
            )


PRESETS: dict[str, WCRConfig] = {
    "ecg_fm": WCRConfig(),
    "wav2vec2": WCRConfig(cmsc_weight=0.0, lead_mask=0.0),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class WCROutput(ObjectiveOutput):
    """Loss and its intermediate results.

    Attributes
    ----------
    logits : Tensor, shape (rows, hidden, 1 + negatives)
        Contrastive scores, the true target's first.
    codes : Tensor, shape (rows, hidden, groups)
        Codes of the targets.
    pooled : Tensor, shape (rows, width)
        Mean token of every segment, some hidden.
    """

    logits: Tensor
    codes: Tensor
    pooled: Tensor


class WCR(nn.Module):
    """An ECG-FM encoder with the heads of its pretraining (wav2vec 2.0, CMSC, RLM).

    The encoder's weights are left as they are; its dropouts are set.

    Attributes
    ----------
    steps : Tensor, scalar int64
        Optimiser steps done, by which the quantiser cools.

    Notes
    -----
    The loss is per hidden token, as it is after the release's division by their number: contrastive
    loss + 0.1 diversity + 10 feature penalty + CMSC. Several processes compare segments, and
    measure how evenly codes are used, over all their records; in the release each does over its
    own.
    """

    def __init__(self, backbone: ECGFM, config: WCRConfig) -> None:
        super().__init__()
        width, conv_width = backbone.config.width, backbone.config.conv_width
        self.backbone = backbone
        self.config = config
        self.mask_vector = nn.Parameter(torch.rand(width))
        self.quantiser = GumbelQuantiser(
            conv_width,
            codes=config.codes,
            groups=config.code_groups,
            out_width=config.target_width,
        )
        self.target_projection = nn.Linear(config.target_width, config.target_width)
        self.context_projection = nn.Linear(width, config.target_width)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor
        _set_dropout(backbone, config.dropout)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> WCROutput:
        """Loss of prepared signals (batch, leads, samples).

        Windows are cut into halves where segments are compared. Leads, hidden tokens, negatives and
        codes are drawn from a CPU generator, dropout from PyTorch's.

        Raises
        ------
        RecipeError
            If the window is too short to hide spans in it.
        """
        config = self.config
        rows = (len(x), 1)
        if config.cmsc_weight:
            rows, x = (len(x), 2), halves(x)
        if self.training:
            x = mask_leads(x, config.lead_mask, records=rows[0], generator=generator)
        tokens = self.backbone.extractor.tokens_of(x.shape[-1])
        mask = draw_spans(
            rows,
            tokens,
            probability=config.mask_probability,
            length=config.mask_length,
            generator=generator,
        )
        hidden = int(mask[:1].sum())
        choices = other_positions(rows, hidden, config.negatives, generator=generator)
        noise = None
        if self.training:
            shape = (rows[1], hidden, config.codes * config.code_groups)
            # Some 30,000 numbers a segment: for records of other processes only seeds are drawn.
            seeds = integers(2**62, rows[:1], generator=generator).tolist()
            noise = torch.cat([_noise(shape, seed, x.device) for seed in seeds])
        return self.compare(
            x,
            mask=mask.to(x.device),
            choices=choices.to(x.device),
            noise=noise,
            generator=generator,
        )

    def encoded_samples(self, samples: int) -> int:
        """Samples of a half of a window where segments are compared, or the window."""
        return half_of(samples, self.backbone) if self.config.cmsc_weight else samples

    def after_step(self, step: int) -> None:
        """Cool the quantiser; `step` updates are done."""
        self.steps.fill_(step)

    def compare(
        self,
        segments: Tensor,
        *,
        mask: Tensor,
        choices: Tensor,
        noise: Tensor | None = None,
        record: Tensor | None = None,
        segment: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> WCROutput:
        """Loss of segments, nothing being drawn.

        Parameters
        ----------
        segments : Tensor, shape (rows, leads, samples)
        mask : Tensor, shape (rows, tokens), bool
            Hidden tokens, as many in each row.
        choices : Tensor, shape (rows, hidden, negatives), int64
            What each hidden token competes with: positions among the hidden ones of its row.
        noise : Tensor, shape (rows, hidden, groups * codes), optional
            Result of `GumbelQuantiser`.
        record, segment : Tensor, shape (rows,), optional
            Arguments of `cmsc_loss`; by default rows are in the order of `halves`.
        generator : torch.Generator, optional
            With a `ShareGenerator`, segments are compared, and the use of codes is measured, over
            all processes that share the batch.
        """
        config = self.config
        local = scaled_gradient(self.backbone.extract(segments), config.extractor_gradient)
        embedded = self.backbone.projection(local)
        context = self.backbone.contextualise(
            torch.where(mask[..., None], self.mask_vector.to(embedded.dtype), embedded)
        )
        logits, codes, parts = self._contrast(local, context, mask, choices, noise, generator)
        loss = parts["contrastive_loss"] + config.diversity_weight * parts["diversity_loss"]
        loss = loss + config.penalty_weight * parts["feature_penalty"]
        pooled = context.mean(1)
        if config.cmsc_weight:
            whole, *places = segments_of_batch(pooled, generator)
            if record is not None and segment is not None:
                places = [record, segment]
            parts["cmsc_loss"] = cmsc_loss(whole, *places, temperature=config.cmsc_temperature)
            loss = loss + config.cmsc_weight * parts["cmsc_loss"]
            parts["retrieval"] = retrieval(whole, *places)
        metrics = {name: value.detach() for name, value in parts.items()}
        return WCROutput(loss=loss, metrics=metrics, logits=logits, codes=codes, pooled=pooled)

    def _contrast(
        self,
        local: Tensor,
        context: Tensor,
        mask: Tensor,
        choices: Tensor,
        noise: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Scores, codes, and the terms of the loss with their logged values."""
        normed = self.backbone.projection.norm(local)
        sources = dropout(hidden_tokens(normed, mask), self.config.dropout, self.training)
        quantised = self.quantiser(
            sources, temperature=self._code_temperature(), noise=noise, generator=generator
        )
        base = quantised.codes.new_tensor(
            [self.config.codes**group for group in range(self.config.code_groups)]
        )
        logits = contrastive_logits(
            self.context_projection(hidden_tokens(context, mask)),
            self.target_projection(quantised.vectors),
            (quantised.codes * base).sum(-1),
            choices,
            temperature=self.config.temperature,
        )
        parts = {
            "contrastive_loss": contrastive_loss(logits),
            "diversity_loss": self.quantiser.diversity_loss(quantised),
            "feature_penalty": local.float().square().mean(),
            "accuracy": (logits.argmax(-1) == 0).float().mean(),
            "code_perplexity": quantised.code_perplexity,
            "prob_perplexity": quantised.prob_perplexity,
            "masked": mask.float().mean(),
        }
        return logits, quantised.codes, parts

    def _code_temperature(self) -> float:
        start, end, factor = self.config.code_temperature
        return float(max(start * factor ** int(self.steps), end))


def create_ecg_fm(backbone: Backbone, **options: Any) -> WCR:
    """ECG-FM's whole objective; options are fields of `WCRConfig`.

    Raises
    ------
    BackboneError
        If the backbone is of another family.
    """
    return _create("ecg_fm", backbone, options)


def create_wav2vec2(backbone: Backbone, **options: Any) -> WCR:
    """The contrastive term alone, on whole windows with all leads; see `create_ecg_fm`."""
    return _create("wav2vec2", backbone, options)


def _create(name: str, backbone: Backbone, options: dict[str, Any]) -> WCR:
    if not isinstance(backbone, ECGFM):
        raise BackboneError(
            f"{backbone.name} has no convolutional tokens to be hidden and quantised",
            remedy="choose the backbone ecg_fm",
        )
    return WCR(backbone, with_options(PRESETS[name], options))


def _set_dropout(backbone: ECGFM, rate: float) -> None:
    """Everywhere but behind the feed-forward's activation, as released."""
    for part in backbone.other_dropouts():
        part.p = rate
    for block in backbone.blocks:
        if isinstance(block, PostNormBlock):
            block.attn.attention_dropout.p = block.mlp.drop2.p = rate


def _noise(shape: tuple[int, ...], seed: int, device: torch.device) -> Tensor:
    """Uniform numbers that depend on the seed alone."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(shape, generator=generator, device=device)
