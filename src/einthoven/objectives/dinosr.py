"""DinoSR: predict, at hidden tokens, the codes that online clustering gives the teacher's tokens.

Liu et al., "DinoSR: Self-Distillation and Online Clustering for Self-supervised Speech
Representation Learning", NeurIPS 2023 (arXiv 2305.10005); for ECGs over a sequence model as in
arXiv 2605.12241.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm

from einthoven.backbones.config import Share
from einthoven.backbones.contract import Backbone, SequenceBackbone
from einthoven.errors import RecipeError, validated
from einthoven.objectives.gathering import sum_over_processes
from einthoven.objectives.masks import mean_over_hidden
from einthoven.objectives.objective import ObjectiveOutput, config_of
from einthoven.objectives.quantiser import nearest, perplexity
from einthoven.objectives.teacher import (
    AS_PUBLISHED,
    PUBLISHED_RATIO,
    MaskedStudent,
    SequenceHead,
    SpanConfig,
    sequence_backbone,
)


@validated("dinosr", RecipeError)
class DinoSRConfig(SpanConfig):
    """Codebooks and head; the other fields are those of `SpanConfig`.

    Attributes
    ----------
    target_layers : int
        Last blocks of the teacher with a codebook each.
    codes : int
        Codes of a codebook.
    code_momentum : float
        Share of a code's sum and count that an update keeps.
    head_state, head_dropout : int, float
        State size and dropout of the state-space layer that predicts.
    """

    target_layers: PositiveInt = 2
    codes: PositiveInt = 256
    code_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    head_state: PositiveInt = 64
    head_dropout: Share = 0.2


DINOSR_PRESETS: dict[str, DinoSRConfig] = {
    # Two layers and codebooks are configured in the released code, one is used.
    "as-published": DinoSRConfig(mask_ratio=PUBLISHED_RATIO, target_layers=1, **AS_PUBLISHED),
    "corrected": DinoSRConfig(),
}


class Codebook(nn.Module):
    """Codes that follow the mean of the vectors assigned to them.

    `collect` counts the vectors of a forward pass, `update` moves the codes after an optimiser
    step. A code without vectors stays where it is.

    Parameters
    ----------
    codes, width : int
        Number of codes, and size of one.
    momentum : float
        Share of sums and counts that an update keeps.
    """

    vectors: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, codes: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        start = _standardised(torch.randn(codes, width))
        self.register_buffer("vectors", start)
        self.register_buffer("sums", start.clone())
        self.register_buffer("counts", torch.ones(codes))
        self._collected: tuple[Tensor, Tensor] | None = None

    def assign(self, x: Tensor) -> Tensor:
        """Nearest code of each vector, by Euclidean distance; (..., width) to (...), int64."""
        return nearest(x, self.vectors)

    def collect(self, x: Tensor, codes: Tensor) -> None:
        """Add vectors to the sums of their codes, until the next `update`."""
        flat, index = x.detach().flatten(0, -2), codes.flatten()
        sums = torch.zeros_like(self.sums).index_add_(0, index, flat)
        counts = torch.bincount(index, minlength=len(self.counts)).to(sums)
        if self._collected is not None:
            sums, counts = sums + self._collected[0], counts + self._collected[1]
        self._collected = sums, counts

    @torch.no_grad()
    def update(self) -> None:
        """Move the codes towards the mean of what all processes collected."""
        if self._collected is None:
            return
        sums, counts = map(sum_over_processes, self._collected)
        self.sums.lerp_(sums, 1.0 - self.momentum)
        self.counts.lerp_(counts, 1.0 - self.momentum)
        moved = counts > 0
        self.vectors[moved] = self.sums[moved] / self.counts[moved, None]
        self._collected = None


class DinoSR(MaskedStudent):
    """A student that predicts the codes of the teacher's last layers at hidden tokens.

    A layer is normalised without parameters, over its features, before it is assigned to codes.
    """

    def __init__(self, backbone: SequenceBackbone, config: DinoSRConfig) -> None:
        super().__init__(backbone, config)
        width, count = backbone.token_dim, config.target_layers
        self.codebooks: Any = nn.ModuleList(
            Codebook(config.codes, width, config.code_momentum) for _ in range(count)
        )
        self.head = SequenceHead(
            width, count * config.codes, state=config.head_state, dropout=config.head_dropout
        )

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples): cross-entropy, mean of codebooks."""
        x = self.standardised(x)
        layers = [
            _standardised(layer_norm(layer.float(), layer.shape[-1:]))
            for layer in self.teacher.layers(x, self.config.target_layers)
        ]
        hidden, spans = self.hidden_spans(layers[0], generator)
        logits = self.head(self.context(x, hidden)).float().chunk(len(layers), dim=-1)
        losses, hits, spread = [], [], []
        for codebook, layer, scores in zip(self.codebooks, layers, logits, strict=True):
            codes = codebook.assign(layer)
            if self.training:
                codebook.collect(layer, codes)
            errors = cross_entropy(scores.transpose(1, 2), codes, reduction="none")
            losses.append(mean_over_hidden(errors, hidden, spans, generator))
            right = (scores.detach().argmax(-1) == codes).float()
            hits.append(mean_over_hidden(right, hidden, spans, generator))
            use = torch.bincount(codes.flatten(), minlength=self.config.codes)
            spread.append(perplexity(use[None] / use.sum()))
        loss = torch.stack(losses).mean()
        metrics = {
            "code_loss": loss.detach(),
            "accuracy": torch.stack(hits).mean(),
            "code_perplexity": torch.stack(spread).mean(),
        }
        return ObjectiveOutput(loss=loss, metrics=metrics | self.metrics(hidden, layers[-1]))

    def after_step(self, step: int) -> None:
        """Move the teacher and the codes."""
        super().after_step(step)
        for codebook in self.codebooks:
            codebook.update()


def _standardised(x: Tensor) -> Tensor:
    """Vectors with mean zero and deviation one over their features."""
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-6)


def create_dinosr(backbone: Backbone, *, preset: str = "corrected", **options: Any) -> DinoSR:
    """DinoSR on a sequence model that sees both sides of a token.

    `preset` is a name of `DINOSR_PRESETS`; options are fields of `DinoSRConfig` that differ from
    it.

    Raises
    ------
    BackboneError
        If the backbone has no stem, or is causal.
    RecipeError
        For an unknown preset or an invalid option.
    """
    return DinoSR(sequence_backbone(backbone, "dinosr"), config_of(DINOSR_PRESETS, preset, options))
