"""HuBERT: predict the cluster of every hidden token, with clusters found beforehand.

Hsu et al., "HuBERT", 2021 (arXiv 2106.07447); for ECGs as in HuBERT-ECG (Coppola et al., medRxiv
2024.11.14.24317328). In the first iteration the clusters are those of simple statistics of the
signal around a token; in later ones those of a layer of the encoder that was trained before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from einthoven.backbones.config import Share
from einthoven.backbones.contract import Backbone
from einthoven.errors import BackboneError, RecipeError, TrainingError, validated
from einthoven.objectives.masks import draw_centred_spans, mean_over_hidden, own_rows
from einthoven.objectives.objective import ObjectiveOutput, config_of
from einthoven.objectives.quantiser import nearest, perplexity
from einthoven.objectives.teacher import recorded


@validated("hubert", RecipeError)
class HuBERTConfig:
    """Clusters, mask and prediction.

    Attributes
    ----------
    clusters : int
        Number of clusters.
    former : str
        Model folder of the encoder of the former iteration; empty for the first one.
    former_layer : int
        Its block, counted from 1, whose output is clustered; 0 for the last.
    around_ms : float
        Length of the signal around a token whose statistics are clustered in the first iteration.
    mask_ratio : float
        Expected share of hidden tokens.
    mask_tokens : int
        Tokens in a hidden span.
    hidden_weight : float
        Weight of the loss at hidden tokens; the others have the rest.
    prediction_width : int
        Width of the vectors that are compared.
    temperature : float
        Divides the cosine similarities.
    fit_records : int
        Training records that the clusters are found on.
    """

    clusters: PositiveInt = 100
    former: str = ""
    former_layer: NonNegativeInt = 0
    around_ms: PositiveFloat = 640.0
    mask_ratio: Share = 0.33
    mask_tokens: PositiveInt = 1
    hidden_weight: float = 1.0
    prediction_width: PositiveInt = 256
    temperature: PositiveFloat = 0.1
    fit_records: PositiveInt = 2_000

    def __post_init__(self) -> None:
        if not 0 <= self.hidden_weight <= 1:
            raise RecipeError(
                f"hubert: hidden_weight = {self.hidden_weight}", remedy="choose between 0 and 1"
            )


HUBERT_PRESETS: dict[str, HuBERTConfig] = {
    # Features are normalised to unit length where clusters are found, and were not where they were
    # predicted; here they are in both. Statistics of single tokens are those of HuBERT-ECG.
    "as-published": HuBERTConfig(),
    # Tokens of 8 to 20 ms are hidden in spans: a single one follows from its neighbours.
    "corrected": HuBERTConfig(mask_ratio=0.5, mask_tokens=5, hidden_weight=0.9),
}


def cluster_logits(projected: Tensor, codes: Tensor, temperature: float = 0.1) -> Tensor:
    """Cosine similarities of tokens (..., width) to codes (clusters, width), over a temperature."""
    with torch.autocast(projected.device.type, enabled=False):
        unit = normalize(projected.float(), dim=-1, eps=1e-8)
        return unit @ normalize(codes.float(), dim=-1, eps=1e-8).t() / temperature


def cluster_losses(
    logits: Tensor,
    labels: Tensor,
    hidden: Tensor,
    whole: Tensor,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy at hidden tokens, and at the others.

    `logits` are (records, tokens, clusters), `labels` (records, tokens); the other arguments are
    those of `mean_over_hidden`.
    """
    errors = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return (
        mean_over_hidden(errors, hidden, whole, generator),
        mean_over_hidden(errors, ~hidden, ~whole, generator),
    )


def signal_statistics(x: Tensor, tokens: int, width: int) -> Tensor:
    """Statistics of each row of signals around each token.

    Parameters
    ----------
    x : Tensor, shape (batch, rows, samples)
    tokens, width : int
        Number of tokens, evenly spaced over the samples, and samples around each.

    Returns
    -------
    Tensor, shape (batch, tokens, 6 * rows)
        Mean, deviation, extremes, mean absolute slope, and skewness.
    """
    stride = x.shape[-1] / tokens
    starts = ((torch.arange(tokens, device=x.device) + 0.5) * stride - width / 2).round().long()
    index = (starts[:, None] + torch.arange(width, device=x.device)).clamp(0, x.shape[-1] - 1)
    window = x[..., index]  # batch, rows, tokens, width
    mean, std = window.mean(-1), window.std(-1, correction=0)
    third = ((window - mean[..., None]) ** 3).mean(-1) / (std + 1e-6) ** 3
    slope = window.diff(dim=-1).abs().mean(-1) if width > 1 else torch.zeros_like(mean)
    values = torch.stack([mean, std, window.amin(-1), window.amax(-1), slope, third], dim=-1)
    return values.transpose(1, 2).flatten(2)


class HuBERT(nn.Module):
    """An encoder that predicts the clusters of hidden tokens.

    `fit` finds the clusters; the pretraining stage calls it once, before the first step.

    Raises
    ------
    RecipeError
        If the former encoder has no such layer.
    """

    centres: Tensor
    shift: Tensor
    scale: Tensor
    is_fitted: Tensor

    def __init__(self, backbone: Any, config: HuBERTConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.fit_records = config.fit_records
        width = backbone.token_dim
        self.mask_vector = nn.Parameter(torch.rand(width))
        self.projection = nn.Linear(width, config.prediction_width)
        self.codes = nn.Parameter(torch.randn(config.clusters, config.prediction_width))
        self.former = _former(config.former)
        layers = len(self.former.blocks) if self.former is not None else config.former_layer
        if config.former_layer > layers:
            raise RecipeError(
                f"hubert: former_layer = {config.former_layer} of {layers} layers",
                remedy=f"choose at most {layers}, or 0 for the last",
            )
        size = self._feature_size()
        self.register_buffer("centres", torch.zeros(config.clusters, size))
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))

    def train(self, mode: bool = True) -> HuBERT:
        """Set the mode; the former encoder stays in evaluation mode."""
        super().train(mode)
        if self.former is not None:
            self.former.eval()
        return self

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Find the clusters of the tokens of prepared signals, by mini-batch k-means.

        Parameters
        ----------
        batches : iterable of Tensor, shape (batch, leads, samples)
            One crop, not augmented, of training records.

        Raises
        ------
        TrainingError
            If there are fewer tokens than clusters.
        """
        from sklearn.cluster import MiniBatchKMeans

        parts = [self._raw_features(x).flatten(0, 1).float().cpu() for x in batches]
        whole = torch.cat(parts)
        if len(whole) < self.config.clusters:
            raise TrainingError(
                f"{len(whole)} tokens for {self.config.clusters} clusters",
                remedy="lower clusters, or pretrain on more records",
            )
        self.shift.copy_(whole.mean(0))
        self.scale.copy_(whole.std(0, correction=0).clamp(min=1e-6))
        kmeans = MiniBatchKMeans(
            self.config.clusters,
            n_init=20,
            batch_size=4096,
            reassignment_ratio=0,
            max_no_improvement=100,
            random_state=42,
        )
        kmeans.fit(self._normalised(whole.to(self.shift)).cpu().numpy().astype(np.float64))
        self.centres.copy_(torch.from_numpy(kmeans.cluster_centers_))
        self.is_fitted.fill_(True)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples).

        Before `fit` the clusters are those of random centres.
        """
        config = self.config
        x = torch.nan_to_num(x)
        labels = self.labels(x)
        z = self.backbone.embed(x)
        spans = draw_centred_spans(
            (len(z), z.shape[1]), config.mask_ratio, config.mask_tokens, generator=generator
        )
        hidden = own_rows(spans, generator).to(x.device)
        context = self.backbone.contextualise(
            torch.where(hidden[..., None], self.mask_vector.to(z.dtype), z)
        )
        logits = cluster_logits(self.projection(context), self.codes, config.temperature)
        at_hidden, elsewhere = cluster_losses(logits, labels, hidden, spans, generator)
        loss = config.hidden_weight * at_hidden + (1 - config.hidden_weight) * elsewhere
        right = (logits.detach().argmax(-1) == labels).float()
        use = torch.bincount(labels.flatten(), minlength=config.clusters)
        return ObjectiveOutput(
            loss=loss,
            metrics={
                "hidden_loss": at_hidden.detach(),
                "accuracy": mean_over_hidden(right, hidden, spans, generator),
                "masked": hidden.float().mean(),
                "cluster_perplexity": perplexity(use[None] / use.sum()),
            },
        )

    @torch.no_grad()
    def labels(self, x: Tensor) -> Tensor:
        """Cluster of each token of signals (batch, leads, samples); (batch, tokens) int64."""
        return nearest(self._normalised(self._raw_features(x).float()), self.centres)

    def _normalised(self, features: Tensor) -> Tensor:
        """Features standardised by those of `fit`, at unit length."""
        return normalize((features - self.shift) / self.scale, dim=-1)

    def _raw_features(self, x: Tensor) -> Tensor:
        """What is clustered, (batch, tokens, size)."""
        tokens = self._token_count(x)
        if self.former is None:
            rows = self._rows(x)
            seconds = self.config.around_ms / 1000
            width = max(2, round(seconds * self.backbone.preparation.rate))
            return signal_statistics(rows, tokens, min(width, rows.shape[-1]))
        count = len(self.former.blocks)
        layer = self.config.former_layer or count
        with recorded(self.former, count) as outputs:
            self.former.tokens(x)
        features = outputs[layer - 1]
        if features.shape[1] != tokens:
            raise RecipeError(
                f"{self.config.former} has {features.shape[1]} tokens where {self.backbone.name} "
                f"has {tokens}",
                remedy="choose a former encoder of the same family",
            )
        return features

    def _rows(self, x: Tensor) -> Tensor:
        """Signals in which a token is a stretch of time: leads, or the row of leads end to end."""
        is_row = self.backbone.family == "hubert_ecg"
        return x.flatten(1).unsqueeze(1) if is_row else x

    def _token_count(self, x: Tensor) -> int:
        if self.backbone.family == "hubert_ecg":
            return int(self.backbone.extractor.tokens_of(x.shape[1] * x.shape[-1]))
        return int(x.shape[-1] * self.backbone.token_rate / self.backbone.preparation.rate)

    def _feature_size(self) -> int:
        if self.former is None:
            return 6 * (1 if self.backbone.family == "hubert_ecg" else len(self.backbone.leads))
        width: int = self.former.token_dim
        return width


def _former(folder: str) -> Any:
    if not folder:
        return None
    from einthoven.models import load_model

    return load_model(folder).backbone.requires_grad_(False).eval()


def create_hubert(backbone: Backbone, *, preset: str = "corrected", **options: Any) -> HuBERT:
    """Masked prediction of clusters on a network with a stem and tokens in context.

    `preset` is a name of `HUBERT_PRESETS`; options are fields of `HuBERTConfig` that differ from
    it.

    Raises
    ------
    BackboneError
        If the backbone has no stem, or is causal.
    RecipeError
        For an unknown preset or an invalid option.
    """
    fits = hasattr(backbone, "embed") and hasattr(backbone, "contextualise")
    if not fits or getattr(backbone, "causal", False):
        raise BackboneError(
            f"{backbone.name} "
            + ("is causal" if fits else "has no stem with a sequence model on top")
            + "; hubert predicts hidden tokens from both sides",
            remedy="choose a bidirectional backbone with a stem (s4 with causal=False, "
            "hubert_ecg_small)",
        )
    return HuBERT(backbone, config_of(HUBERT_PRESETS, preset, options))
