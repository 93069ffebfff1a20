"""Joint-embedding prediction: predict the teacher's tokens of hidden blocks from the other tokens.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive
Architecture", CVPR 2023 (arXiv 2301.08243); for ECGs over a sequence model as in arXiv 2605.12241.
Hidden tokens stay in the sequence as one learned vector, because a state-space model needs all
positions.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from einthoven.backbones.config import Share
from einthoven.backbones.contract import Backbone, SequenceBackbone
from einthoven.errors import RecipeError, validated
from einthoven.objectives.masks import draw_blocks, own_rows
from einthoven.objectives.objective import ObjectiveOutput, config_of
from einthoven.objectives.teacher import (
    AS_PUBLISHED,
    TOKEN_MS,
    MaskedStudent,
    SequenceHead,
    TeacherConfig,
    sequence_backbone,
)


@validated("jepa", RecipeError)
class JEPAConfig(TeacherConfig):
    """Blocks and head; the other fields are those of `TeacherConfig`.

    Attributes
    ----------
    blocks : int
        Target blocks of a record.
    target_share, context_share : (float, float)
        Range of the lengths of target blocks and of the context block, as shares of the tokens.
    least_ms : float
        Least length of a target block and of the whole context, ms.
    head_state, head_dropout : int, float
        State size and dropout of the state-space layer that predicts.
    """

    blocks: PositiveInt = 4
    target_share: tuple[float, float] = (0.15, 0.20)
    context_share: tuple[float, float] = (0.85, 1.0)
    least_ms: PositiveFloat = 16 * TOKEN_MS
    head_state: PositiveInt = 64
    head_dropout: Share = 0.2

    def __post_init__(self) -> None:
        for low, high in (self.target_share, self.context_share):
            if not 0 < low <= high <= 1:
                raise RecipeError(
                    f"jepa: a share of ({low}, {high})",
                    remedy="give a range between 0 and 1, the smaller number first",
                )


JEPA_PRESETS: dict[str, JEPAConfig] = {
    # Target blocks are meant to have 45 to 60 of 300 tokens, but are lifted to 64, all of them.
    "as-published": JEPAConfig(least_ms=64 * TOKEN_MS, **AS_PUBLISHED),
    "corrected": JEPAConfig(),
}


class JEPA(MaskedStudent):
    """A student that predicts the teacher's tokens in hidden blocks.

    The targets are the teacher's tokens after a layer norm without parameters; the loss is smooth
    L1, averaged over blocks, so that a token in two blocks counts twice.
    """

    def __init__(self, backbone: SequenceBackbone, config: JEPAConfig) -> None:
        super().__init__(backbone, config)
        width = backbone.token_dim
        self.head = SequenceHead(width, width, state=config.head_state, dropout=config.head_dropout)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples).

        Raises
        ------
        RecipeError
            If the window is shorter than the least block.
        """
        x = self.standardised(x)
        (target,) = self.teacher.layers(x)
        target = layer_norm(target.float(), target.shape[-1:])
        drawn = draw_blocks(
            (len(x), target.shape[1]),
            blocks=self.config.blocks,
            target_share=self.config.target_share,
            context_share=self.config.context_share,
            least=self.tokens_of(self.config.least_ms),
            generator=generator,
        )
        hidden = ~own_rows(drawn.context, generator).to(x.device)
        predicted = self.head(self.context(x, hidden)).float()
        index = own_rows(drawn.targets, generator).to(x.device).flatten(1)
        index = index[..., None].expand(-1, -1, target.shape[-1])
        loss = smooth_l1_loss(predicted.gather(1, index), target.gather(1, index))
        metrics = {"prediction_loss": loss.detach()} | self.metrics(hidden, target)
        return ObjectiveOutput(loss=loss, metrics=metrics)


def create_jepa(backbone: Backbone, *, preset: str = "corrected", **options: Any) -> JEPA:
    """Joint-embedding prediction on a sequence model that sees both sides of a token.

    `preset` is a name of `JEPA_PRESETS`; options are fields of `JEPAConfig` that differ from it.

    Raises
    ------
    BackboneError
        If the backbone has no stem, or is causal.
    RecipeError
        For an unknown preset or an invalid option.
    """
    return JEPA(sequence_backbone(backbone, "jepa"), config_of(JEPA_PRESETS, preset, options))
