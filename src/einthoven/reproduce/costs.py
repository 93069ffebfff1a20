"""What a model of table 1 costs: parameters, minutes of training, records a second."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from einthoven.experiment.run import METRICS
from einthoven.files import read_json, read_lines
from einthoven.reproduce.evidence import Ensemble, Evidence, Folders, Model
from einthoven.training.run import ABOUT


@dataclass(frozen=True)
class Cost:
    """Of a run, or of an ensemble's runs together; means over seeds.

    Attributes
    ----------
    parameters : int or None
        Of backbone and head; None where a run of an earlier version did not record it and its
        bundle is no longer read.
    seconds : float or None
        Of training, validation after every epoch and a linear probe's every rate included;
        pretraining is not. None for a bundle, which does not say.
    rate : float or None
        Training records a second, median over epochs of fine-tuning; None for an ensemble, and
        for a linear probe.
    device : str
        What the last of it ran on.
    """

    parameters: int | None
    seconds: float | None
    rate: float | None
    device: str

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)


def cost_of(evidence: Evidence, model: Model) -> Cost | None:
    """The cost of a model's finished runs; None while there are none."""
    seeds = list(evidence.folders(model).values())
    if not seeds:
        return None
    counted = [_parameters(folder) for folder in seeds[0]]
    numbers = [[read_json(folder / METRICS) for folder in each] for each in seeds]
    rates = [] if isinstance(model, Ensemble) else [_rate(each) for each in seeds]
    known = [rate for rate in rates if rate is not None]
    spent = [[run["seconds"] for run in each] for each in numbers]
    return Cost(
        parameters=None if None in counted else sum(filter(None, counted)),
        seconds=None if any(None in each for each in spent) else mean(map(sum, spent)),
        rate=mean(known) if known else None,
        device=" and ".join(sorted({_device(folder) for each in seeds for folder in each})),
    )


def _rate(folders: Folders) -> float | None:
    (folder,) = folders
    epochs = read_lines(folder / "stage2" / "metrics.jsonl")
    return median(line["samples_per_second"] for line in epochs) if epochs else None


def _parameters(folder: Path) -> int | None:
    parameters = read_json(folder / METRICS).get("parameters")
    return None if parameters is None else int(parameters)


def _device(folder: Path) -> str:
    recorded = read_json(folder / METRICS).get("device")
    return str(recorded or read_json(folder / ABOUT)["environment"]["machine"])
