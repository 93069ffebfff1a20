"""The validation of a pretraining: the same records, crops and masks after every epoch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from einthoven.signals.batches import SignalSource
from einthoven.signals.draws import generator_for
from einthoven.stages.corpus import Corpus, shortened
from einthoven.training.distributed import Processes

RECORDS, BATCH = 1024, 128
_SEED = 0x5EED


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Loss and metrics of an objective on validation records; `Loop.validate`.

    Processes share the batches; what comes out does not depend on how many they are.

    Attributes
    ----------
    sources : tuple of SignalSource
        Of each cohort that has validation records.
    names : tuple of str
        Of these cohorts.
    shares : tuple of float
        Of each in the joint numbers, as in training.
    processes : Processes
        Who validates together.
    """

    sources: tuple[SignalSource, ...]
    names: tuple[str, ...]
    shares: tuple[float, ...]
    processes: Processes

    @classmethod
    def of(cls, corpus: Corpus, processes: Processes) -> HeldOut | None:
        """At most 1,024 records, as many of each cohort; None where there are none."""
        if not corpus.validation:
            return None
        places, sources = zip(*corpus.validation, strict=True)
        each = RECORDS // len(sources)
        draws = [corpus.draws[place] for place in places]
        return cls(
            sources=tuple(shortened(source, each) for source in sources),
            names=tuple(corpus.names[place] for place in places),
            shares=tuple(count / sum(draws) for count in draws),
            processes=processes,
        )

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """`validation_loss` and `validation_` metrics; of several cohorts also each one's loss."""
        jobs = [
            (part, start)
            for part, source in enumerate(self.sources)
            for start in range(0, len(source), BATCH)
        ]
        here = self.processes
        mine = [self._batch(model, *job) for job in jobs[here.rank :: here.world]]
        shared = here.gather(mine)
        batches = [shared[place % here.world][place // here.world] for place in range(len(jobs))]
        sums: list[dict[str, float]] = [defaultdict(float) for _ in self.sources]
        for (part, _), batch in zip(jobs, batches, strict=True):
            for name, value in batch.items():
                sums[part][name] += value
        means = [
            {name: value / len(source) for name, value in found.items()}
            for found, source in zip(sums, self.sources, strict=True)
        ]
        whole = {
            f"validation_{name}": sum(
                share * found[name] for share, found in zip(self.shares, means, strict=True)
            )
            for name in means[0]
        }
        if len(means) > 1:
            pairs = zip(self.names, means, strict=True)
            whole |= {f"validation_loss:{name}": found["loss"] for name, found in pairs}
        return whole

    @torch.no_grad()
    def _batch(self, model: nn.Module, part: int, start: int) -> dict[str, float]:
        """Loss and metrics of a batch, each times its records."""
        source = self.sources[part]
        key = (start, _SEED, part) if part else (start, _SEED)
        chosen = np.arange(start, min(start + BATCH, len(source)))
        signals = source.training_batch(chosen, generator_for(*key), None).signals
        out = model(signals.to(self.processes.device), generator=generator_for(*key))
        values = {"loss": out.loss} | dict(out.metrics)
        return {name: float(value) * len(chosen) for name, value in values.items()}
