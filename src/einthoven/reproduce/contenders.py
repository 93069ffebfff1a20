"""Which post-trained model the peers are held against: the best on fold 9 of those that are known.

Known are the finished runs of the reproduction's own folder, whatever experiment made them, and
the runs and bundles that `--against` names. A model is its runs of several seeds, all from the same
weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from einthoven.errors import ReproduceError
from einthoven.experiment.run import METRICS
from einthoven.files import read_json
from einthoven.models import is_model
from einthoven.reproduce.bundles import check_bundle, predicted_folder
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
    weights : str or None
        SHA-256 of the file that it started from; None for random weights.
    bundle : str
        Its name, where it is known as a bundle; empty for runs.
    """

    model: Found
    validation: float
    weights: str | None
    bundle: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What it is, without its folders, ready for JSON."""
        return {
            **({"bundle": self.bundle} if self.bundle else {}),
            "backbone": self.model.backbone,
            "recipe": self.model.recipe,
            "seeds": [seed for seed, _ in self.model.folders],
            "validation_auroc": self.validation,
            "weights_sha256": self.weights,
        }


def best_contender(request: Request, task: str) -> Contender | None:
    """The known post-trained model of a task that is best on fold 9; None where none is known.

    Raises
    ------
    ReproduceError
        When a folder of `--against` holds no finished run, or two runs are of one model and seed.
    """
    return max(contenders(request, task), key=lambda each: each.validation, default=None)


def check_contenders(request: Request) -> None:
    """Refuse before anything is trained what table 1 would be refused for at its end.

    Raises
    ------
    ReproduceError
        When `--against` names no finished run and no bundle of one of the tasks, or two runs are of
        one model and seed.
    """
    for place in request.against:
        if is_model(place):
            check_bundle(request, place)
    for task in request.experiment.tasks:
        contenders(request, task)


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
    folders: dict[int, Path] = {}
    for folder, run in runs:
        seed = run["recipe"]["seed"]
        if seed in folders:
            raise ReproduceError(
                f"{folders[seed]} and {folder} are runs of one model with the same seed, {seed}: "
                "which of them counts?",
                remedy="move one of them to another folder",
            )
        folders[seed] = folder
    values = [read_json(file / METRICS)["validation"]["macro_auroc"] for file in folders.values()]
    found = Found(
        task=asked["task"],
        backbone=asked["backbone"],
        recipe=asked["recipe"]["name"],
        folders=tuple(sorted(folders.items())),
    )
    return Contender(found, mean(values), _weights(asked), asked.get("bundle", ""))


def _known(request: Request) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run folders and what they asked for, each once, whatever names it."""
    seen: set[Path] = set()
    for folder, asked in _named(request):
        if (place := folder.resolve()) not in seen:
            seen.add(place)
            yield folder, asked


def _named(request: Request) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run folders and what they asked for: finished, and on all training records."""
    for place in dict.fromkeys((request.out, *request.against)):
        if place != request.out and is_model(place):
            predicted = predicted_folder(request, place)
            if (predicted / METRICS).is_file():  # `predict_bundles` has been there
                yield predicted, _finished_run(predicted)
            continue
        if (place / ABOUT).is_file():  # one run, which need not look like post-training
            yield place, _finished_run(place)
            continue
        if place != request.out and not (place / RUNS).is_dir():
            raise ReproduceError(
                f"--against {place}: neither a run folder nor a reproduction's, nor a bundle",
                remedy="name the folder of a finished run, the --out of another reproduction, or a "
                "bundle such as einthoven-small",
            )
        for file in sorted((place / RUNS).glob(f"*/{ABOUT}")):
            asked = read_json(file)["request"]
            if (file.parent / METRICS).is_file() and is_post_training(asked):
                yield file.parent, asked


def _finished_run(folder: Path) -> dict[str, Any]:
    asked: dict[str, Any] = read_json(folder / ABOUT)["request"]
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
    # What a model knows is in its weights: the same recipe from another encoder is another model.
    recipe = {key: value for key, value in asked["recipe"].items() if key != "seed"}
    options = asked.get("backbone_options")
    place = folder if asked.get("bundle") else folder.parent  # every bundle is a model of its own
    told = [str(place.resolve()), asked["backbone"], options, _weights(asked), recipe]
    return json.dumps(told, sort_keys=True)


def _weights(asked: dict[str, Any]) -> str | None:
    weights = asked.get("weights")
    return None if weights is None else weights.get("sha256")
