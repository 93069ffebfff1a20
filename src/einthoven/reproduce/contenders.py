"""Which post-trained model the peers are held against: the best on fold 9 of those that are known.

Known are the finished runs of the reproduction's own folder, whatever experiment made them, and
those that `--against` names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from einthoven.errors import ReproduceError
from einthoven.experiment import METRICS
from einthoven.files import read_json
from einthoven.reproduce.evidence import Found
from einthoven.reproduce.folders import RANDOM, RUNS, Request
from einthoven.training.run import ABOUT


@dataclass(frozen=True)
class Contender:
    """A post-trained model, with the macro AUROC on fold 9 that it is chosen by.

    Attributes
    ----------
    model : Found
        Its finished runs.
    validation : float
        Mean over its seeds.
    """

    model: Found
    validation: float

    def to_dict(self) -> dict[str, Any]:
        """What it is, without its folders, ready for JSON."""
        return {
            "backbone": self.model.backbone,
            "recipe": self.model.recipe,
            "seeds": [seed for seed, _ in self.model.folders],
            "validation_auroc": self.validation,
        }


def best_contender(request: Request, task: str) -> Contender | None:
    """The known post-trained model of a task that is best on fold 9; None where none is known.

    Raises
    ------
    ReproduceError
        When a folder of `--against` holds no finished run.
    """
    return max(contenders(request, task), key=lambda each: each.validation, default=None)


def contenders(request: Request, task: str) -> list[Contender]:
    """All of them, in the order in which they are found; runs that differ only in their seed are
    one model."""
    alike: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for folder, asked in _known(request):
        if asked["task"] == task:
            alike.setdefault(_but_for_the_seed(folder, asked), []).append((folder, asked))
    return [_contender(runs) for runs in alike.values()]


def _contender(runs: list[tuple[Path, dict[str, Any]]]) -> Contender:
    asked = runs[0][1]
    folders = {run["recipe"]["seed"]: folder for folder, run in runs}
    values = [read_json(file / METRICS)["validation"]["macro_auroc"] for file in folders.values()]
    found = Found(
        task=asked["task"],
        backbone=asked["backbone"],
        recipe=asked["recipe"]["name"],
        folders=tuple(sorted(folders.items())),
    )
    return Contender(found, mean(values))


def _known(request: Request) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run folders and what they asked for: finished, and on all training records."""
    for place in dict.fromkeys((request.out, *request.against)):
        if (place / ABOUT).is_file():  # one run, which need not look like post-training
            yield place, _finished_run(place)
            continue
        if place != request.out and not (place / RUNS).is_dir():
            raise ReproduceError(
                f"--against {place}: neither a run folder nor a reproduction's",
                remedy="name the folder of a finished run, or the --out of another reproduction",
            )
        for file in sorted((place / RUNS).glob(f"*/{ABOUT}")):
            asked = read_json(file)["asked"]
            if (file.parent / METRICS).is_file() and is_post_training(asked):
                yield file.parent, asked


def _finished_run(folder: Path) -> dict[str, Any]:
    asked: dict[str, Any] = read_json(folder / ABOUT)["asked"]
    if asked.get("stage") != "posttrain" or not (folder / METRICS).is_file():
        raise ReproduceError(
            f"--against {folder} is no finished run of a classifier",
            remedy="let it finish: the same posttrain command goes on",
        )
    return asked


def is_post_training(asked: dict[str, Any]) -> bool:
    """Whether a run is the strategy of arXiv 2509.12991 on all training records: pretrained
    weights, a linear probe, then fine-tuning with stochastic depth."""
    recipe, weights = asked["recipe"], asked.get("weights")
    if asked.get("stage") != "posttrain" or weights is None:
        return False
    if Path(weights["path"]).name.startswith(RANDOM) or recipe["data"]["fraction"] < 1:
        return False
    fine = recipe["stage2"]
    return bool(recipe["stage1"] and fine and fine["drop_path"] > 0)


def _but_for_the_seed(folder: Path, asked: dict[str, Any]) -> str:
    # Each seed may have a pretraining of its own, so that the weights' digest says nothing.
    recipe = {key: value for key, value in asked["recipe"].items() if key != "seed"}
    told = [str(folder.parent), asked["backbone"], asked.get("backbone_options"), recipe]
    return json.dumps(told, sort_keys=True)
