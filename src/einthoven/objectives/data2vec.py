"""data2vec: predict, at hidden tokens, the mean of the teacher's last layers.

Baevski et al., "data2vec", ICML 2022 (arXiv 2202.03555); for ECGs over a sequence model as in
arXiv 2605.12241.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from einthoven.backbones.config import Share
from einthoven.backbones.contract import Backbone, SequenceBackbone
from einthoven.errors import RecipeError, validated
from einthoven.objectives.jepa import TOKEN_MS
from einthoven.objectives.masks import draw_centred_spans, own_rows
from einthoven.objectives.objective import ObjectiveOutput
from einthoven.objectives.teacher import (
    AS_PUBLISHED,
    MaskedStudent,
    SequenceHead,
    TeacherConfig,
    config_of,
    sequence_backbone,
)
from einthoven.signals.random import share_of

PUBLISHED_RATIO = 1 - (1 - 0.065 / 10) ** 10
"""Share of hidden tokens in the released code, 6.3 %: the probability 0.065 of a span is divided by
its length once more."""


@validated("data2vec", RecipeError)
class Data2VecConfig(TeacherConfig):
    """Mask, targets and head; the other fields are those of `TeacherConfig`.

    Attributes
    ----------
    mask_ratio : float
        Expected share of hidden tokens.
    mask_ms : float
        Length of a hidden span, ms.
    target_layers : int
        Last blocks of the teacher whose mean is predicted.
    target_part : {"block", "branch"}
        Outputs of whole blocks, or of their last residual branches, before residual and norm.
    head_state, head_dropout : int, float
        State size and dropout of the state-space layer that predicts.
    """

    mask_ratio: Share = 0.5
    mask_ms: PositiveFloat = 10 * TOKEN_MS
    target_layers: PositiveInt = 2
    target_part: Literal["block", "branch"] = "branch"
    head_state: PositiveInt = 64
    head_dropout: Share = 0.2


DATA2VEC_PRESETS: dict[str, Data2VecConfig] = {
    "as-published": Data2VecConfig(mask_ratio=PUBLISHED_RATIO, **AS_PUBLISHED),
    "corrected": Data2VecConfig(),
}


class Data2Vec(MaskedStudent):
    """A student that predicts the mean of the teacher's last layers at hidden tokens.

    Layers are normalised without parameters before they are averaged. The loss is smooth L1, summed
    over features, averaged over hidden tokens, and divided by the root of the width.
    """

    def __init__(self, backbone: SequenceBackbone, config: Data2VecConfig) -> None:
        super().__init__(backbone, config)
        width = backbone.token_dim
        self.head = SequenceHead(width, width, state=config.head_state, dropout=config.head_dropout)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples)."""
        x = self.standardised(x)
        layers = self.teacher.layers(x, self.config.target_layers, part=self.config.target_part)
        normed = [layer_norm(layer.float(), layer.shape[-1:]) for layer in layers]
        target = torch.stack(normed).mean(0)
        spans = draw_centred_spans(
            (len(x), target.shape[1]),
            self.config.mask_ratio,
            self.tokens_of(self.config.mask_ms),
            generator=generator,
        )
        hidden = own_rows(spans, generator).to(x.device)
        predicted = self.head(self.context(x, hidden)).float()
        errors = smooth_l1_loss(predicted, target, reduction="none").sum(-1)
        loss = mean_over_hidden(errors, hidden, spans, generator) * target.shape[-1] ** -0.5
        metrics = {"prediction_loss": loss.detach()} | self.metrics(hidden, target)
        return ObjectiveOutput(loss=loss, metrics=metrics)


def mean_over_hidden(
    values: Tensor, hidden: Tensor, whole: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Mean of values (records, tokens) where `hidden`; zero if nothing is.

    `whole` has the hidden tokens of all processes. The mean of the processes' results is the mean
    over all of their hidden tokens.
    """
    world = share_of(generator)[1]
    return (values * hidden).sum() * world / whole.sum().clamp(min=1).to(values.device)


def create_data2vec(backbone: Backbone, *, preset: str = "corrected", **options: Any) -> Data2Vec:
    """data2vec on a sequence model that sees both sides of a token.

    `preset` is a name of `DATA2VEC_PRESETS`; options are fields of `Data2VecConfig` that differ
    from it.

    Raises
    ------
    BackboneError
        If the backbone has no stem, or is causal.
    RecipeError
        For an unknown preset or an invalid option.
    """
    config = config_of(DATA2VEC_PRESETS, preset, options)
    return Data2Vec(sequence_backbone(backbone, "data2vec"), config)
