"""Reading experiments: those that come with einthoven, and TOML files of one's own."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from einthoven.errors import ReproduceError
from einthoven.reproduce.experiments import Experiment

_EXPERIMENTS = Path(__file__).resolve().parent.parent / "recipes" / "reproduce"
GENERAL = "ptbxl-100hz-cpu"
"""The experiment of backbones that none is made for."""
_ITS_OWN = {"name", "description", "made_for"}  # what an experiment leaves to none that extends it


def experiment_names() -> list[str]:
    """Experiments that come with einthoven."""
    return sorted(file.stem for file in _EXPERIMENTS.glob("*.toml"))


def experiment_for(backbone: str) -> str:
    """The experiment that a backbone is reproduced by when none is named.

    The one whose `made_for` has it, and the general one where there is none.
    """
    named = (name for name in experiment_names() if backbone in load_experiment(name).made_for)
    return next(named, GENERAL)


def load_experiment(name: str | Path) -> Experiment:
    """Read an experiment: one that comes with einthoven, or a TOML file.

    Raises
    ------
    ReproduceError
        For an unknown experiment or key, a wrong type, or parts that do not hold together.
    """
    file = _file_of(name)
    table = _whole(file)
    try:
        return Experiment.model_validate(
            table | {"folder": file.resolve().parent, "asked": str(name)}
        )
    except ValidationError as error:
        raise ReproduceError(
            f"{file}: {_problems(error)}",
            remedy="correct the experiment; docs/reproduce.md lists every key",
        ) from error


def _file_of(name: str | Path) -> Path:
    file = Path(name)
    if file.suffix == ".toml":
        return file
    if str(name) not in experiment_names():
        raise ReproduceError(
            f"no experiment {str(name)!r}",
            remedy=f"choose {', '.join(experiment_names())}, or name a .toml file",
        )
    return _EXPERIMENTS / f"{name}.toml"


def _whole(file: Path) -> dict[str, Any]:
    """An experiment's keys, and those that it takes from the one that it extends."""
    table = _read(file)
    if not isinstance(base := table.get("extends", ""), str) or not base:
        return table
    other = _file_of(file.parent / base if base.endswith(".toml") else base)
    taken = _read(other)
    if "extends" in taken:
        raise ReproduceError(
            f"{file} extends {other}, which extends another", remedy="extend that one"
        )
    return {key: taken[key] for key in taken.keys() - _ITS_OWN} | table


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        raise ReproduceError(f"{file} is missing", remedy="name an existing .toml file") from error
    except tomllib.TOMLDecodeError as error:
        raise ReproduceError(f"{file} is no TOML: {error}", remedy="correct that line") from error


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, entry['loc'])) or 'experiment'}: {entry['msg']}"
        for entry in error.errors()
    )
