"""Contrastive predictive coding: distinguish the next token from others of the same record.

Van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018; for ECGs
as in arXiv 2605.12241 and its predecessor ECG-CPC (arXiv 2509.25095). A causal encoder sees the
past; a linear head predicts the stem's output some tokens ahead; the prediction's dot product with
the true token competes with those of other tokens.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from einthoven.backbones.config import TYPICAL_DEVIATION_MV
from einthoven.backbones.contract import Backbone, SequenceBackbone
from einthoven.errors import BackboneError, RecipeError, validated
from einthoven.objectives.gathering import batch_places, tokens_of_batch
from einthoven.objectives.objective import ObjectiveOutput, config_of
from einthoven.signals.random import integers, share_of


@validated("cpc", RecipeError)
class CPCConfig:
    """Prediction offsets and negatives.

    Attributes
    ----------
    offsets_ms : tuple of float
        Distance of the predicted token, in ms; one linear head each.
    negatives : int
        Other tokens of the same record, drawn with replacement for every position; 0 takes every
        other token of the record once.
    pool : int
        Tokens drawn from the whole batch, of all processes, that compete at every position as
        well, so that records are distinguished, and not only moments of one record.
    normalise : bool
        Cosine similarities over `temperature`, instead of plain dot products.
    temperature : float
        Temperature of the cosine similarities.
    reduction : {"sum", "mean"}
        Over positions: summed as published, which scales the loss with the window, or averaged.
    scale : float or None
        Scale of the encoder's inputs, in mV, where the encoder has none of its own. It becomes part
        of the encoder's preparation, and of whatever is trained from it. None leaves the encoder's
        inputs as they are.
    """

    offsets_ms: tuple[float, ...] = (14 * 1000 / 120,)
    negatives: NonNegativeInt = 128
    pool: NonNegativeInt = 0
    normalise: bool = False
    temperature: PositiveFloat = 1.0
    reduction: Literal["sum", "mean"] = "sum"
    scale: PositiveFloat | None = None


CPC_PRESETS: dict[str, CPCConfig] = {
    # One offset of 14 tokens of 8.33 ms, 128 negatives of the same record, raw dot products, raw
    # millivolts. (The study's other objectives pretrain on standardised signals and are fine-tuned
    # on raw millivolts, three to seven times smaller; CPC alone meets one scale in both.)
    "as-published": CPCConfig(),
    # Several offsets, from inside a QRS complex to half a beat, every other token as a negative;
    # inputs of about unit deviation, in pretraining and in all that follows.
    "corrected": CPCConfig(
        offsets_ms=(40.0, 120.0, 240.0, 480.0),
        negatives=0,
        pool=128,
        reduction="mean",
        scale=TYPICAL_DEVIATION_MV,
    ),
}


def draw_negatives(
    positives: Tensor, tokens: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw positions below `tokens` uniformly with replacement, but not the positive one.

    `positives` are (...), records first; the result is (..., count).
    """
    # On the CPU, whatever the device: the same seed draws the same negatives everywhere.
    indices = integers(tokens - 1, (*positives.shape, count), generator=generator)
    indices = indices.to(positives.device)
    return indices + (indices >= positives.unsqueeze(-1))


class ContrastivePrediction(nn.Module):
    """A causal encoder with linear heads that predict its own stem ahead of time.

    Parameters
    ----------
    backbone : SequenceBackbone
        The encoder; its weights are left as they are, and its inputs get the config's scale.
    config : CPCConfig
        Offsets and negatives.

    Raises
    ------
    BackboneError
        If the encoder is not causal: it would see what it has to predict.
    RecipeError
        If offsets are equal in tokens, or below one.

    Notes
    -----
    Nothing is detached: the stem learns from being predicted as well as from predicting.
    Similarities are one matrix product a record, from which the negatives' scores are gathered;
    gathering the negatives' vectors instead gives the same loss and costs many times more.
    """

    def __init__(self, backbone: SequenceBackbone, config: CPCConfig) -> None:
        super().__init__()
        if not backbone.causal:
            raise BackboneError(
                f"{backbone.name} sees the future that it would have to predict",
                remedy="build it with causal=True",
            )
        offsets = [round(ms * backbone.token_rate / 1000) for ms in config.offsets_ms]
        if not offsets or min(offsets) < 1 or len(set(offsets)) < len(offsets):
            raise RecipeError(
                f"offsets_ms = {config.offsets_ms} are {offsets} tokens of {backbone.name}",
                remedy="give different offsets of at least one token "
                f"({1000 / backbone.token_rate:.3g} ms)",
            )
        if config.scale is not None and backbone.input_scale is None:
            backbone.scale_inputs(config.scale)
        self.backbone = backbone
        self.config = config
        self.offsets = tuple(offsets)
        width = backbone.token_dim
        self.heads = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in offsets)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples); negatives are drawn on the CPU.

        Raises
        ------
        RecipeError
            If the window is no longer than an offset.
        """
        z = self.backbone.embed(x)
        tokens = z.shape[1]
        if tokens <= max(self.offsets):
            raise RecipeError(
                f"a window of {tokens} tokens, predicted {max(self.offsets)} ahead",
                remedy="lengthen crop_seconds or shorten offsets_ms",
            )
        context = self.backbone.contextualise(z)
        pool = self._draw_pool(z, generator)
        losses, hits = [], []
        for head, offset in zip(self.heads, self.offsets, strict=True):
            logits, truth = self._logits(head(context[:, :-offset]), z, offset, pool, generator)
            total = cross_entropy(
                logits.flatten(0, 1), truth.flatten(), reduction=self.config.reduction
            )
            losses.append(total / len(x) if self.config.reduction == "sum" else total)
            hits.append((logits.detach().argmax(-1) == truth).float().mean())
        loss = torch.stack(losses).mean()
        return ObjectiveOutput(
            loss=loss,
            metrics={"contrastive_loss": loss.detach(), "accuracy": torch.stack(hits).mean()},
        )

    def _draw_pool(self, z: Tensor, generator: torch.Generator | None) -> Tensor | None:
        if not self.config.pool:
            return None
        count = z.shape[0] * z.shape[1] * share_of(generator)[1]
        return torch.randint(count, (self.config.pool,), generator=generator).to(z.device)

    def _logits(
        self,
        predicted: Tensor,
        z: Tensor,
        offset: int,
        pool: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Scores of all candidates, (batch, positions, candidates), and the true one's index."""
        batch, tokens = z.shape[:2]
        if self.config.normalise:
            z = nn.functional.normalize(z, dim=-1)
            predicted = nn.functional.normalize(predicted, dim=-1) / self.config.temperature
        scores = torch.bmm(predicted, z.transpose(1, 2)).float()
        truth = torch.arange(offset, tokens, device=z.device).expand(batch, -1)
        candidates = [scores]
        if pool is not None:
            others = (predicted @ tokens_of_batch(z, pool, generator).t()).float()
            flat = truth + tokens * batch_places(batch, generator).to(z.device)[:, None]
            candidates.append(others.masked_fill(flat[..., None] == pool, -torch.inf))
        if self.config.negatives:
            negatives = draw_negatives(truth, tokens, self.config.negatives, generator)
            candidates[0] = scores.gather(-1, torch.cat([truth[..., None], negatives], dim=-1))
            truth = torch.zeros_like(truth)
        return torch.cat(candidates, dim=-1), truth


def create_cpc(
    backbone: Backbone, *, preset: str = "corrected", **options: Any
) -> ContrastivePrediction:
    """Contrastive predictive coding on a causal sequence model.

    `preset` is a name of `CPC_PRESETS`; options are fields of `CPCConfig` that differ from it.

    Raises
    ------
    BackboneError
        If the backbone has no stem and causal context.
    RecipeError
        For an unknown preset or an invalid option, and for a `scale` other than the backbone's.
    """
    if not isinstance(backbone, SequenceBackbone):
        raise BackboneError(
            f"{backbone.name} has no stem with a sequence model on top",
            remedy="choose a backbone such as s4",
        )
    config = config_of(CPC_PRESETS, preset, options)
    scale, input_scale = options.get("scale"), backbone.input_scale
    if scale is not None and input_scale is not None and scale != input_scale:
        raise RecipeError(
            f"scale = {scale} for {backbone.name}, whose inputs count {input_scale:g} mV as one",
            remedy="set one of the two: the objective's scale, or the backbone's",
        )
    return ContrastivePrediction(backbone, config)
