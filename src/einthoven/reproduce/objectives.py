"""The table of objectives: every pretraining by every variant, and what each axis changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from einthoven.files import HISTORY_FILE, Json, read_lines
from einthoven.reproduce.experiment import PretrainingSource
from einthoven.reproduce.figures import draw_axis
from einthoven.reproduce.grid import OBJECTIVES, Group, target_groups
from einthoven.reproduce.results import AUROC_AUPRC, Results
from einthoven.reproduce.tables import Section, section
from einthoven.stages.pretrain import STAGE

_LOGGED = ("loss", "seconds", "per_second", "epoch", "lr")  # ends of entries that are no diagnosis
_SHOWN = {
    "name", "objective", "options", "fraction", "steps", "epochs", "batch_size", "base_lr", "seed"
}  # fmt: skip
Key = tuple[str, str]  # backbone, and name of a pretraining


def objectives(results: Results) -> Section:
    """Every pretraining of an experiment by every variant.

    Differences are paired and share their seeds: to the random network of the same backbone, and,
    for every axis (the entry's name and the backbone are two of them), to the first pretraining of
    the experiment that differs in this axis alone.
    """
    experiment, backbone = results.reproduction.experiment, results.reproduction.backbone
    coordinates = _coordinates(results)
    groups = list(target_groups(OBJECTIVES, experiment, backbone))
    floors: dict[str, Key] = {}
    for key, values in coordinates.items():
        if not values:
            floors.setdefault(key[0], key)
    entries = []
    for group in groups:
        floor = floors.get(group.backbone)
        has_floor = floor is not None and coordinates[group.backbone, group.pretraining]
        entry = vars(group) | {"validation_auroc": results.macro(group, "auroc", "validation")}
        for metric in AUROC_AUPRC:
            entry[metric] = results.macro(group, metric)
            entry[f"{metric}_minus_random"] = (
                results.macro(group, metric, minus=_with(group, floor))
                if floor and has_floor
                else None
            )
        entries.append(entry | {"has_floor": bool(has_floor)})
    pairs = list(_pairs(coordinates))
    differences = [
        {
            "axis": axis,
            **vars(group),
            "reference": dict(zip(("backbone", "pretraining"), reference, strict=True)),
            **{m: results.macro(group, m, minus=_with(group, reference)) for m in AUROC_AUPRC},
        }
        for axis, key, reference in pairs
        for group in groups
        if (group.backbone, group.pretraining) == key and _with(group, reference) in groups
    ]
    numbers = {
        "pretrainings": [_pretraining(results, *key) for key in coordinates],
        "groups": entries,
        "differences": differences,
    }
    return section(
        results,
        OBJECTIVES,
        numbers,
        _drawings(results, coordinates, entries),
        axes=list(dict.fromkeys(axis for axis, _, _ in pairs)),
        of_axis=lambda axis: [
            entry for entry in differences if entry["axis"] == axis and entry["auroc"]
        ],
        variants=list(experiment.variants),
        tasks=list(dict.fromkeys(group.task for group in groups)),
    )


def _drawings(
    results: Results, coordinates: dict[Key, Json], entries: list[Json]
) -> dict[str, str]:
    """Test values over every axis of numbers, on the main task by the first variant."""
    experiment, drawings = results.reproduction.experiment, {}
    first = next(iter(experiment.variants))
    values = {
        (entry["backbone"], entry["pretraining"]): entry
        for entry in entries
        if entry["task"] == experiment.main_task and entry["variant"] == first and entry["auroc"]
    }
    trained = {key: place for key, place in coordinates.items() if place and key in values}
    axes = dict.fromkeys(axis for place in trained.values() for axis in place if axis != "seed")
    for axis in axes:
        series: dict[str, dict[float, Json]] = {}
        for key, place in trained.items():
            if isinstance(place[axis], int | float) and not isinstance(place[axis], bool):
                others = [str(v) for name, v in place.items() if name != axis and v is not None]
                series.setdefault(", ".join(others), {})[place[axis]] = values[key]
        series = {name: points for name, points in series.items() if len(points) > 1}
        if series:
            name = f"{OBJECTIVES}-{axis}"
            drawings[name] = draw_axis(name, axis, series)
    return drawings


def _with(group: Group, key: Key) -> Group:
    """The same group after another pretraining."""
    return Group(**vars(group) | {"backbone": key[0], "pretraining": key[1]})


def _coordinates(results: Results) -> dict[Key, Json]:
    """Value of every pretraining on every axis of the experiment; none for random networks."""
    experiment = results.reproduction.experiment
    axes = dict.fromkeys(key for source in experiment.pretraining for key in source.axes)
    axes = {key: None for key in axes if key != "backbone"}
    coordinates: dict[Key, Json] = {}
    for entry in experiment.pretraining:
        for source in entry.combinations():
            backbone = source.backbone or results.reproduction.backbone
            coordinates[backbone, source.name] = (
                {"name": entry.name, "backbone": backbone}
                | {key: _value(results, source, backbone, key) for key in axes}
                if source.recipe
                else {}
            )
    return coordinates


def _value(results: Results, source: PretrainingSource, backbone: str, key: str) -> Any:
    recipe, options = results.reproduction.experiment.pretraining_of(backbone, source.name)
    if key.startswith("backbone."):
        return options.get(key.removeprefix("backbone."))
    value: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _pairs(coordinates: dict[Key, Json]) -> Iterator[tuple[str, Key, Key]]:
    """Axis, pretraining, and the first one that differs from it in that axis alone."""
    trained = {key: values for key, values in coordinates.items() if values}
    for axis in dict.fromkeys(axis for values in trained.values() for axis in values):
        firsts: dict[str, Key] = {}
        for key, values in trained.items():
            others = repr({name: value for name, value in values.items() if name != axis})
            first = firsts.setdefault(others, key)
            if trained[first][axis] != values[axis]:
                yield axis, key, first


def _pretraining(results: Results, backbone: str, name: str) -> Json:
    """Recipe of a pretraining, and what its run logged last; None where it has not run."""
    reproduction = results.reproduction
    source = reproduction.experiment.source_of(backbone, name)
    numbers: Json = {
        "backbone": backbone,
        "pretraining": name,
        "recipe": None,
        "epochs": None,
        "seconds": None,
        "diagnosis": {},
    }
    if source is None or not source.recipe:
        return numbers
    recipe, _ = reproduction.experiment.pretraining_of(backbone, name)
    numbers["recipe"] = recipe.model_dump(mode="json", include=_SHOWN)
    folder = reproduction.pretraining(backbone, name)
    lines = read_lines(folder / STAGE / HISTORY_FILE) if folder.is_dir() else []
    if lines:
        numbers["epochs"] = lines[-1]["epoch"]
        numbers["seconds"] = sum(line["seconds"] for line in lines)
        numbers["diagnosis"] = {
            key.removeprefix("validation_"): value
            for key, value in lines[-1].items()
            if not key.endswith(_LOGGED)
        }
    return numbers
