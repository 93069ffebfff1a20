"""data2vec: predict, at hidden tokens, the mean of the teacher's last layers.

Baevski et al., "data2vec", ICML 2022 (arXiv 2202.03555); for ECGs over a sequence model as in
arXiv 2605.12241.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from einthoven.backbones.config import Share
from einthoven.backbones.contract import Backbone, SequenceBackbone
from einthoven.errors import RecipeError, validated
from einthoven.objectives.masks import mean_over_hidden
from einthoven.objectives.objective import ObjectiveOutput, config_of
from einthoven.objectives.teacher import (
    AS_PUBLISHED,
    PUBLISHED_RATIO,
    MaskedStudent,
    SequenceHead,
    SpanConfig,
    sequence_backbone,
)


@validated("data2vec", RecipeError)
class Data2VecConfig(SpanConfig):
    """Targets and head; the other fields are those of `SpanConfig`.

    Attributes
    ----------
    target_layers : int
        Last blocks of the teacher whose mean is predicted.
    target_part : {"block", "branch"}
        Outputs of whole blocks, or of their last residual branches, before residual and norm.
    head_state, head_dropout : int, float
        State size and dropout of the state-space layer that predicts.
    """

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
        hidden, spans = self.hidden_spans(target, generator)
        predicted = self.head(self.context(x, hidden)).float()
        errors = smooth_l1_loss(predicted, target, reduction="none").sum(-1)
        loss = mean_over_hidden(errors, hidden, spans, generator) * target.shape[-1] ** -0.5
        metrics = {"prediction_loss": loss.detach()} | self.metrics(hidden, target)
        return ObjectiveOutput(loss=loss, metrics=metrics)


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
