"""Contrastive multi-segment coding: distinguish two segments of one recording from all others.

Kiyasseh et al., "CLOCS: Contrastive Learning of Cardiac Signals Across Space, Time, and Patients",
ICML 2021; as ECG-FM uses it (McKeen et al., JAMIA Open 2025). Neighbouring segments of a recording
share the heart and the electrodes, so their representations should be alike and unlike those of
other recordings.

A batch holds one window of every recording; its two halves are the two segments. Positives are
therefore segments of the same recording, not of the same patient, as in ECG-FM's release.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from einthoven.backbones.contract import Backbone
from einthoven.errors import RecipeError, validated
from einthoven.objectives.gathering import tokens_of_batch
from einthoven.objectives.objective import ObjectiveOutput, with_options
from einthoven.signals.augment import Probability
from einthoven.signals.random import share_of, uniform


@validated("cmsc", RecipeError)
class CMSCConfig:
    """Settings of the contrastive loss.

    Attributes
    ----------
    temperature : float
        Divides the similarities.
    lead_mask : float
        Probability with which every lead of every segment is zeroed in training, each segment on
        its own (random lead masking).
    """

    temperature: PositiveFloat = 0.1
    lead_mask: Probability = 0.5


def halves(x: Tensor, half: int | None = None) -> Tensor:
    """Split every window into halves, as one batch.

    Returns the segments, (2 * batch, leads, half), both halves of the first window, then of the
    next. A half has `half` samples, by default half of the window; samples at the end are left out.

    Raises
    ------
    RecipeError
        If a window is too short to be halved.
    """
    half = x.shape[-1] // 2 if half is None else half
    if half < 1:
        raise RecipeError(
            f"a window of {x.shape[-1]} samples has no halves", remedy="lengthen crop_seconds"
        )
    return torch.stack([x[..., :half], x[..., half : 2 * half]], dim=1).flatten(0, 1)


def half_of(samples: int, backbone: Backbone) -> int:
    """Samples of a half of a window, the most that the backbone's `multiple` allows."""
    return samples // 2 // backbone.multiple * backbone.multiple


def mask_leads(
    segments: Tensor,
    probability: float,
    *,
    records: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Zero every lead of every segment with a probability, independently (random lead masking).

    Segments are (rows, leads, samples), with the same number of rows a record, record by record. A
    segment may lose all its leads.
    """
    if not probability:
        return segments
    shape = (records, len(segments) // max(records, 1), segments.shape[1])
    draws = uniform(shape, generator=generator, device=segments.device).flatten(0, 1)
    return segments.masked_fill((draws < probability)[..., None], 0.0)


def segments_of_batch(
    features: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gather the features of the segments of all processes, with gradients.

    `features` are (2 * records, dim), in the order of `halves`. Returns those of the whole batch,
    the record of each segment, and which half it is, 0 or 1, both int64. (ECG-FM's release compares
    the segments of each process alone.)
    """
    place = torch.arange(len(features) * share_of(generator)[1], device=features.device)
    pairs = features.view(-1, 2, features.shape[-1])
    whole = tokens_of_batch(pairs, place, generator)
    return whole, place // 2, place % 2


def cmsc_loss(
    features: Tensor, record: Tensor, segment: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """Cross-entropy of finding the other segment of a recording, in both directions.

    `features` are (rows, dim), a vector a segment; `record` and `segment`, (rows,), are those of
    `segments_of_batch`. The scalar result is the mean negative log-softmax of the cosine
    similarities over the temperature, over all pairs that belong together, with first segments as
    queries and with second ones, averaged.

    Vectors are divided by their length, at least 1e-8, through which no gradient flows, as in
    ECG-FM's release.
    """
    scores, together = _compare(features, record, segment)
    logits = scores / temperature
    directions = [-logits.log_softmax(dim)[together].mean() for dim in (1, 0)]
    return torch.stack(directions).mean()


def retrieval(features: Tensor, record: Tensor, segment: Tensor) -> Tensor:
    """Share of first segments whose nearest second segment is of the same recording."""
    scores, together = _compare(features.detach(), record, segment)
    return together.gather(1, scores.argmax(1, keepdim=True)).float().mean()


def _compare(features: Tensor, record: Tensor, segment: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity of every first segment to every second one, and which belong together."""
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        length = features.detach().norm(dim=-1, keepdim=True).clamp(min=1e-8)
        unit = features / length
        first, second = segment == 0, segment == 1
        return unit[first] @ unit[second].t(), record[first, None] == record[None, second]


class SegmentContrast(nn.Module):
    """A backbone whose features of two halves of a window are to be alike.

    Any backbone that takes windows of half the length; its weights are left as they are.
    """

    def __init__(self, backbone: Backbone, config: CMSCConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config

    def encoded_samples(self, samples: int) -> int:
        """Samples of a half of a window."""
        return half_of(samples, self.backbone)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples) of at least two recordings."""
        segments = halves(x, self.encoded_samples(x.shape[-1]))
        if self.training:
            segments = mask_leads(
                segments, self.config.lead_mask, records=len(x), generator=generator
            )
        features, record, segment = segments_of_batch(self.backbone.features(segments), generator)
        loss = cmsc_loss(features, record, segment, temperature=self.config.temperature)
        return ObjectiveOutput(
            loss=loss,
            metrics={
                "cmsc_loss": loss.detach(),
                "retrieval": retrieval(features, record, segment),
            },
        )


def create_cmsc(backbone: Backbone, **options: Any) -> SegmentContrast:
    """Contrastive multi-segment coding on any backbone; options are fields of `CMSCConfig`."""
    return SegmentContrast(backbone, with_options(CMSCConfig(), options))
