"""Augmentation of prepared batches.

Every augmentation is a frozen value that is called with a batch (batch, leads, samples) and a
generator, and returns a new batch of the same shape and type. Each record has its own draws. A
result depends on the generator's state and on the whole batch: the same record in a batch of
another size or at another place has other draws.

RandAugment and its eight operations are those of ST-MEM's fine-tuning (Na et al., ICLR 2024,
arXiv 2402.09450, released code); they run after standardisation and nothing is standardised again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor

from einthoven.errors import RecipeError, validated

_RATIO = 0.3
_AMPLITUDE = 0.3
_PERIOD = 0.5

Probability = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Protocol):
    """Random change of a prepared training batch."""

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return an augmented copy of x, (batch, leads, samples)."""
        ...


# Each takes a batch (batch, leads, samples), a strength (level / 10, above 0) and a generator, and
# draws its parameters for every record.


def _shift(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Move each record in time, all leads together, and fill with zeros."""
    direction = 1 - 2 * _below(x, 2, generator)
    by = direction * _draw_length(x, strength, generator)
    source = _time(x) - by[:, None]
    inside = (source >= 0) & (source < x.shape[2])
    index = source.clamp(0, x.shape[2] - 1)[:, None].expand_as(x)
    return torch.where(inside[:, None], x.gather(2, index), 0.0)


def _cutout(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Zero one stretch of each record in all leads."""
    start, length = _draw_stretch(x, strength, generator)
    return torch.where(_inside(x, start, length), 0.0, x)


def _drop(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Zero single samples of each record in all leads."""
    count = _below(x, math.floor(_RATIO * strength * x.shape[2]), generator)
    # The first `count` places of a random order are `count` different places.
    place = _uniform(x, generator, x.shape[2]).argsort(1).argsort(1)
    return torch.where((place < count[:, None])[:, None], 0.0, x)


def _flip(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Change the sign."""
    return -x


def _erase(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Zero one lead of each record."""
    lead = _below(x, x.shape[1], generator)
    erased = torch.arange(x.shape[1], device=x.device) == lead[:, None]
    return torch.where(erased[:, :, None], 0.0, x)


def _sine(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Add the same sine to every lead."""
    return x + _wave(x, strength)


def _partial_sine(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Add the beginning of that sine within a stretch of each record."""
    start, length = _draw_stretch(x, strength, generator)
    wave = _wave(x, strength)[(_time(x) - start[:, None]).clamp(min=0)]
    return x + torch.where(_inside(x, start, length), wave[:, None], 0.0)


def _partial_white_noise(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Add noise within a stretch of each record."""
    start, length = _draw_stretch(x, strength, generator)
    noise = torch.randn(x.shape, generator=generator, device=generator.device)
    scaled = (_AMPLITUDE * strength * noise).to(device=x.device, dtype=x.dtype)
    return x + torch.where(_inside(x, start, length), scaled, 0.0)


def _time(x: Tensor) -> Tensor:
    return torch.arange(x.shape[2], device=x.device)


def _inside(x: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """(batch, 1, samples) mask of a stretch of each record."""
    time = _time(x)
    return ((time >= start[:, None]) & (time < (start + length)[:, None]))[:, None]


def _wave(x: Tensor, strength: float) -> Tensor:
    """(samples,) sine of the strength's amplitude and period, a fraction of the record."""
    time = _time(x).to(x.dtype) / x.shape[2]
    return _AMPLITUDE * strength * torch.sin(2 * math.pi * time / (_PERIOD / strength))


def _uniform(x: Tensor, generator: Generator, *more: int) -> Tensor:
    return torch.rand(len(x), *more, generator=generator, device=generator.device).to(x.device)


def _below(x: Tensor, limit: Tensor | int, generator: Generator) -> Tensor:
    """(batch,) integers, uniform on 0 ... limit - 1, and 0 where the limit is 0."""
    return (_uniform(x, generator).double() * limit).long()


def _draw_length(x: Tensor, strength: float, generator: Generator) -> Tensor:
    return (_uniform(x, generator) * (_RATIO * strength * x.shape[2])).floor().long()


def _draw_stretch(x: Tensor, strength: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Start and length of a stretch of each record, both (batch,)."""
    length = _draw_length(x, strength, generator)
    return _below(x, x.shape[2] - length + 1, generator), length


Operation = Callable[[Tensor, float, Generator], Tensor]

OPERATIONS: dict[str, Operation] = {
    "shift": _shift,
    "cutout": _cutout,
    "drop": _drop,
    "flip": _flip,
    "erase": _erase,
    "sine": _sine,
    "partial_sine": _partial_sine,
    "partial_white_noise": _partial_white_noise,
}
"""The eight operations: (batch, level / 10, generator) to a new batch."""


@validated("rand-augment", RecipeError)
class RandAugment:
    """Some different operations for every record, each applied with a probability.

    Parameters
    ----------
    level : float
        Strength of the operations, 0 to 10; 0 changes nothing.
    operations : int
        Number of the eight operations that are drawn for a record, without repetition.
    probability : float
        Probability that a drawn operation is applied.
    flip : bool
        Whether the change of sign is among the operations; no electrode does it to all leads.

    Notes
    -----
    At level l, stretches are up to 0.3 l/10 of the record, amplitudes 0.3 l/10 (of a standardised
    signal), and the period of the sine is 0.5/(l/10) of the record. ST-MEM: level 10, two
    operations, probability 0.5.
    """

    level: Annotated[float, Field(ge=0, le=10)] = 10.0
    operations: Annotated[int, Field(ge=0, le=len(OPERATIONS))] = 2
    probability: Probability = 0.5
    flip: bool = True

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return an augmented copy of x, (batch, leads, samples)."""
        x = x.clone()
        if self.level == 0:
            return x
        drawn = [each for name, each in OPERATIONS.items() if self.flip or name != "flip"]
        order = _uniform(x, generator, len(drawn)).argsort(1)
        applied = _uniform(x, generator, len(drawn)) < self.probability
        for turn in range(min(self.operations, len(drawn))):
            for number, operation in enumerate(drawn):
                rows = ((order[:, turn] == number) & applied[:, turn]).nonzero().flatten()
                if len(rows):
                    x[rows] = operation(x[rows], self.level / 10, generator)
        return x


@validated("lead-mask", RecipeError)
class RandomLeadMask:
    """Zero every lead of every record with a probability, independently (ECG-FM, RLM).

    Parameters
    ----------
    probability : float
        Probability that a lead is zeroed; ECG-FM uses 0.5.

    Notes
    -----
    As published, a record may lose all its leads; with twelve leads and 0.5, one in 4,096 does.
    """

    probability: Probability = 0.5

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return a masked copy of x, (batch, leads, samples)."""
        masked = _uniform(x, generator, x.shape[1]) < self.probability
        return torch.where(masked[:, :, None], 0.0, x)


AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "rand-augment": RandAugment,
    "rand-augment-no-flip": partial(RandAugment, flip=False),
    "lead-mask": RandomLeadMask,
}
"""Augmentations by their names in recipes."""


def create_augmentation(name: str, **options: Any) -> Augmentation:
    """Create an augmentation by name, for example ``create_augmentation("rand-augment", level=5)``.

    Raises
    ------
    RecipeError
        If a name or an option is unknown, or a value is out of its range.
    """
    if name not in AUGMENTATIONS:
        raise RecipeError(
            f"augmentation = {name!r} is unknown",
            remedy=f"use one of {', '.join(sorted(AUGMENTATIONS))}",
        )
    return AUGMENTATIONS[name](**options)


@dataclass(frozen=True)
class Mixing:
    """Mixes of two records of a batch and of their targets: mixup, CutMix along time, or both.

    Attributes
    ----------
    mixup : float
        Parameter of the symmetric beta distribution of a record's share in a weighted sum (Zhang et
        al., "mixup: Beyond Empirical Risk Minimization", 2018); 0 is off.
    cutmix : float
        That of its share where a stretch of time of all leads is another record's (Yun et al.,
        "CutMix", 2019, along time); 0 is off. If both are on, each batch draws one of them.

    Notes
    -----
    Every record has its own share, at least one half, and the record before it in the batch is its
    partner. A target is the mean of both, weighted by share; unknown (NaN) where one of them is.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, x: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Mix signals (batch, leads, samples) and targets (batch, labels)."""
        source = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        cuts = bool(self.cutmix) and (not self.mixup or source.random() < 0.5)
        strength = self.cutmix if cuts else self.mixup
        share = torch.from_numpy(source.beta(strength, strength, len(x))).to(x).clamp_(0, 1)
        share = torch.maximum(share, 1 - share)
        if cuts:
            length = ((1 - share) * x.shape[2]).round().long()
            start = _below(x, x.shape[2] - length + 1, generator)
            share = 1 - length / x.shape[2]
            mixed = torch.where(_inside(x, start, length), x.roll(1, 0), x)
        else:
            mixed = torch.lerp(x.roll(1, 0), x, share[:, None, None])
        return mixed, torch.lerp(targets.roll(1, 0), targets, share[:, None])
