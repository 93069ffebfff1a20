"""Prediction of balanced soft clusters of the teacher's tokens; called HuBERT++ in its paper.

arXiv 2605.12241: k-means on the unit sphere, whose soft assignments are balanced over a batch by
the Sinkhorn-Knopp iteration (Cuturi, NeurIPS 2013), with two codebooks of different size.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import normalize

from einthoven.backbones.contract import Backbone, SequenceBackbone
from einthoven.errors import RecipeError, validated
from einthoven.objectives.gathering import records_of_batch, sum_over_processes
from einthoven.objectives.masks import mean_over_hidden
from einthoven.objectives.objective import ObjectiveOutput, config_of
from einthoven.objectives.quantiser import perplexity
from einthoven.objectives.teacher import (
    AS_PUBLISHED,
    PUBLISHED_RATIO,
    MaskedStudent,
    SpanConfig,
    sequence_backbone,
)
from einthoven.signals.random import share_of


@validated("sinkhorn_kmeans", RecipeError)
class SinkhornConfig(SpanConfig):
    """Clusters and temperatures; the other fields are those of `SpanConfig`.

    Attributes
    ----------
    clusters : tuple of int
        Size of each codebook.
    cluster_momentum : float
        Share of a prototype that an update keeps.
    iterations : int
        Sinkhorn-Knopp iterations.
    teacher_temperature, student_temperature : (float, float)
        At the first step and from `temperature_steps` on, half a cosine in between.
    temperature_steps : int
        Optimiser steps of both ramps.
    hidden_weight : float
        Weight of the loss at hidden tokens; the others have the rest.
    entropy_weight : float
        Weight of the entropy of the student's distribution at temperature one.
    """

    clusters: tuple[PositiveInt, ...] = (128, 256)
    cluster_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.99
    iterations: PositiveInt = 3
    teacher_temperature: tuple[PositiveFloat, PositiveFloat] = (0.15, 0.07)
    student_temperature: tuple[PositiveFloat, PositiveFloat] = (0.5, 0.1)
    temperature_steps: PositiveInt = 200
    hidden_weight: Annotated[float, Field(ge=0, le=1)] = 0.75
    entropy_weight: NonNegativeFloat = 0.001


SINKHORN_PRESETS: dict[str, SinkhornConfig] = {
    "as-published": SinkhornConfig(mask_ratio=PUBLISHED_RATIO, **AS_PUBLISHED),
    "corrected": SinkhornConfig(),
}


def sinkhorn(
    scores: Tensor, iterations: int = 3, generator: torch.Generator | None = None
) -> Tensor:
    """Balance soft assignments over a batch: columns, then rows, divided by their sums.

    Parameters
    ----------
    scores : Tensor, shape (vectors, clusters)
        Similarities over a temperature.
    iterations : int
        Rounds.
    generator : torch.Generator, optional
        With a `ShareGenerator`, columns are summed over the processes that share the batch.

    Returns
    -------
    Tensor, shape (vectors, clusters)
        Rows sum to one.
    """
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    is_shared = share_of(generator)[1] > 1  # in validation every process has batches of its own
    for _ in range(iterations):
        columns = weights.sum(0)
        columns = sum_over_processes(columns) if is_shared else columns
        weights = weights / (columns + 1e-8)
        weights = weights / (weights.sum(1, keepdim=True) + 1e-8)
    return weights


def spread_starts(x: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Choose starts of k-means among vectors, far from each other (k-means++).

    Parameters
    ----------
    x : Tensor, shape (vectors, width)
        Unit vectors, the same in every process.
    count : int
        Number of starts.
    generator : torch.Generator, optional
        CPU generator.

    Returns
    -------
    Tensor, shape (count, width)
        Random unit vectors where there are fewer different ones than starts.
    """
    places = [int(torch.randint(len(x), (), generator=generator))]
    nearest = (x - x[places[0]]).square().sum(1)
    fallback = normalize(torch.randn(count, x.shape[1], generator=generator), dim=1).to(x)
    while len(places) < count and float(nearest.max()) > 1e-6:
        total = nearest.double().cumsum(0)
        draw = torch.rand((), generator=generator, dtype=torch.float64).to(total) * total[-1]
        index = min(int(torch.searchsorted(total, draw)), len(x) - 1)
        places.append(index)
        nearest = torch.minimum(nearest, (x - x[index]).square().sum(1))
    fallback[: len(places)] = x[places]
    return fallback


class Prototypes(nn.Module):
    """Unit vectors that follow the mean direction of what is assigned to them.

    Parameters
    ----------
    count, width : int
        Number of prototypes, and size of one.
    momentum : float
        Share of a prototype that an update keeps.
    """

    vectors: Tensor
    is_started: Tensor

    def __init__(self, count: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("vectors", normalize(torch.randn(count, width), dim=1))
        self.register_buffer("is_started", torch.zeros((), dtype=torch.bool))
        self._sums: Tensor | None = None

    def start(self, x: Tensor, generator: torch.Generator | None) -> None:
        """Choose the first prototypes among unit vectors (records, tokens, width), once."""
        if not self.is_started:
            whole = records_of_batch(x, generator).flatten(0, 1)
            self.vectors.copy_(spread_starts(whole, len(self.vectors), generator))
            self.is_started.fill_(True)

    def collect(self, x: Tensor, weights: Tensor) -> None:
        """Add vectors (count, width) by their soft assignments, until the next `update`."""
        sums = weights.t() @ x
        self._sums = sums if self._sums is None else self._sums + sums

    @torch.no_grad()
    def update(self) -> None:
        """Move the prototypes towards what all processes collected."""
        if self._sums is not None:
            directions = normalize(sum_over_processes(self._sums), dim=1)
            self.vectors.copy_(normalize(self.vectors.lerp(directions, 1 - self.momentum), dim=1))
            self._sums = None


class SinkhornKMeans(MaskedStudent):
    """A student that predicts balanced soft clusters of the teacher's tokens.

    Attributes
    ----------
    steps : Tensor, scalar int64
        Optimiser steps done, by which the temperatures fall.
    """

    steps: Tensor

    def __init__(self, backbone: SequenceBackbone, config: SinkhornConfig) -> None:
        super().__init__(backbone, config)
        width = backbone.token_dim
        self.prototypes: Any = nn.ModuleList(
            Prototypes(count, width, config.cluster_momentum) for count in config.clusters
        )
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, sum(config.clusters))
        )
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples), summed over codebooks."""
        config = self.config
        x = self.standardised(x)
        (layer,) = self.teacher.layers(x)
        features = normalize(layer.float(), dim=-1)
        hidden, spans = self.hidden_spans(features, generator)
        parts = self.head(self.context(x, hidden)).float().split(config.clusters, dim=-1)
        losses, spread = [], []
        for prototypes, logits in zip(self.prototypes, parts, strict=True):
            target = self._assign(prototypes, features, generator)
            spread.append(perplexity(target.mean((0, 1))[None]))
            losses.append(self._loss(logits, target, hidden, spans, generator))
        loss = torch.stack(losses).sum()
        metrics = {
            "cluster_loss": loss.detach(),
            "cluster_perplexity": torch.stack(spread).mean(),
        }
        return ObjectiveOutput(loss=loss, metrics=metrics | self.metrics(hidden, features))

    @torch.no_grad()
    def _assign(
        self, prototypes: Any, features: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Balanced soft assignments of the tokens, (records, tokens, clusters)."""
        flat = features.flatten(0, 1)
        temperature = self._temperature(self.config.teacher_temperature)
        with torch.autocast(features.device.type, enabled=False):
            if self.training:
                prototypes.start(features, generator)
            scores = flat @ prototypes.vectors.t() / temperature
            weights = sinkhorn(scores, self.config.iterations, generator)
            if self.training:
                prototypes.collect(flat, weights)
        return weights.view(*features.shape[:2], -1)

    def _loss(
        self,
        logits: Tensor,
        target: Tensor,
        hidden: Tensor,
        spans: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Divergence at hidden and at other tokens, and the weighted entropy."""
        config = self.config
        student = (logits / self._temperature(config.student_temperature)).log_softmax(-1)
        divergence = (target * (target.clamp(min=1e-12).log() - student)).sum(-1)
        log_probabilities = logits.log_softmax(-1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1).mean()
        at_hidden = mean_over_hidden(divergence, hidden, spans, generator)
        elsewhere = mean_over_hidden(divergence, ~hidden, ~spans, generator)
        weight = config.hidden_weight
        divergences = weight * at_hidden + (1 - weight) * elsewhere
        loss: Tensor = divergences + config.entropy_weight * entropy
        return loss

    def _temperature(self, ends: tuple[float, float]) -> float:
        done = min(int(self.steps) / self.config.temperature_steps, 1.0)
        return ends[1] + (ends[0] - ends[1]) * (1 + math.cos(math.pi * done)) / 2

    def after_step(self, step: int) -> None:
        """Move the teacher and the prototypes, and lower the temperatures."""
        super().after_step(step)
        for prototypes in self.prototypes:
            prototypes.update()
        self.steps.fill_(step)


def create_sinkhorn_kmeans(
    backbone: Backbone, *, preset: str = "corrected", **options: Any
) -> SinkhornKMeans:
    """Prediction of balanced clusters on a sequence model that sees both sides of a token.

    `preset` is a name of `SINKHORN_PRESETS`; options are fields of `SinkhornConfig` that differ
    from it.

    Raises
    ------
    BackboneError
        If the backbone has no stem, or is causal.
    RecipeError
        For an unknown preset or an invalid option.
    """
    config = config_of(SINKHORN_PRESETS, preset, options)
    return SinkhornKMeans(sequence_backbone(backbone, "sinkhorn_kmeans"), config)
