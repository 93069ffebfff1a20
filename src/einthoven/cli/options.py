"""Options of several commands, and what their values mean."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from einthoven.cli.progress import note
from einthoven.errors import BackboneError
from einthoven.files import check_output
from einthoven.models import SHIPPED
from einthoven.workers import MOST_THREADS


def one_of(*choices: str, **details: Any) -> Any:
    """An option that takes one of a few words."""

    def check(value: str) -> str:
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return typer.Option(callback=check, metavar=f"[{'|'.join(choices)}]", **details)


def output_file(path: Path | None) -> Path | None:
    """Callback of an option that names a file to write: refuse it before anything is computed."""
    return _checked_output(path, folder=False)


def output_folder(path: Path | None) -> Path | None:
    """Callback of an option that names a folder to write: refuse it before anything is computed."""
    return _checked_output(path, folder=True)


def _checked_output(path: Path | None, *, folder: bool) -> Path | None:
    if path is not None:
        check_output(path, folder=folder)
    return path


StorePath = Annotated[
    Path | None,
    typer.Option(help="The packed cohort. Default: one in the cache folder, packed when missing."),
]
Out = Annotated[
    Path,
    typer.Option(
        callback=output_folder, help="Run folder; an unfinished run of the same request is resumed."
    ),
]


def _check_tracker(name: str | None) -> str | None:
    """Refuse an unknown tracker, and one that is not installed, before anything is read."""
    if name is not None:
        from einthoven.training.tracking import TRACKERS, check_tracker

        if name not in TRACKERS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(TRACKERS)}")
        check_tracker(name)
    return name


Track = Annotated[
    str | None,
    typer.Option(
        callback=_check_tracker,
        metavar="TRACKER",
        help="Also send the metrics of every epoch, the recipe and the test metrics to a tracker, "
        "installed by pip: tensorboard (writes into OUT), mlflow (MLFLOW_TRACKING_URI), or wandb "
        "(uploads to its server on the network, unless WANDB_MODE=offline).",
        show_default=False,
    ),
]


def _check_device(name: str) -> str:
    """Refuse a device that does not exist before anything is read."""
    if name not in ("auto", "cpu"):
        from einthoven.backbones.inference import device_of

        device_of(name)
    return name


Device = Annotated[
    str,
    typer.Option(
        callback=_check_device,
        help="auto (a CUDA GPU, else the CPU), cpu, cuda, a GPU such as cuda:1, or mps.",
    ),
]


Runtime = Annotated[
    str,
    one_of(
        "auto",
        "torch",
        "onnx",
        help="PyTorch, or onnxruntime for a model of `einthoven export`: a .onnx file, or "
        "model.onnx in the model folder. Default: as the model is named.",
    ),
]


def _check_threads(threads: int | None) -> int | None:
    """Refuse a number of threads that ends the process."""
    if threads is not None and threads > MOST_THREADS:
        raise typer.BadParameter(f"{threads} is more than {MOST_THREADS}")
    return threads


Threads = Annotated[
    int | None, typer.Option(min=1, callback=_check_threads, help="CPU threads. Default: all.")
]
Leads = Annotated[
    str | None,
    typer.Option(help="Leads that the network reads, such as I,II,V2. Default: its own."),
]


def _describe_arrays(context: typer.Context, texts: list[str] | None) -> list[str]:
    """Describe the array files that the command reads, until it ends."""
    if texts:
        from einthoven.records.sidecar import described, sidecar_from_texts

        context.with_resource(described(sidecar_from_texts(texts)))
    return texts or []  # typer 0.16 expects no None


Sidecar = Annotated[
    list[str] | None,
    typer.Option(
        callback=_describe_arrays,
        metavar="KEY=VALUE|FILE",
        help="What CSV, NumPy, MATLAB and HDF5 files do not state: rate=500, unit=uV, "
        "leads=I,II,V1, or a .toml file. Repeatable.",
        show_default=False,
    ),
]
"""Acts by its callback; commands do not use the value."""
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "--label",
        help="Column that is predicted, or a condition such as 'lvef <= 40' or 'sex = female'. "
        "Default: all columns of 0 and 1. Repeatable.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        help="A task.toml, which says what is predicted; or labels of a data set: all-71 (default) "
        "or diagnostic-44, subclass-23, superclass-5, form-19, rhythm-12, sex, age or "
        "superclass-single of PTB-XL; cinc-2021 (default), cinc-2020 or all of the Challenges; "
        "statements of any; others in docs/cohorts.md.",
        show_default=False,
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="Kind of --target: multilabel (the default), binary, threshold, multiclass or "
        "regression.",
        show_default=False,
    ),
]
Unit = Annotated[
    list[str] | None,
    typer.Option(help="Unit of a regression, one for all targets or one for each."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key, such as seed=1. Repeatable."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="Set a field of the backbone's config, such as missing_leads=zero; `einthoven "
        "backbones NAME` lists them. Repeatable.",
    ),
]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model folder, or einthoven-small.")
]
"""Model of a command about models; commands about ECGs have `ModelPath`."""
ModelPath = Annotated[
    Path,
    typer.Option(
        "--model",
        metavar="MODEL",
        envvar="EINTHOVEN_MODEL",
        help=f"Model folder, such as RUN/model, or {SHIPPED}, the included model.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]
Split = Annotated[str, typer.Option(help="train, validation or test.")]
ScoredSplit = Annotated[
    str | None,
    typer.Option(
        help="train, validation, test or all. Default: test, but all records of a table without "
        "splits that the model has not seen."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _check_resamples(resamples: int) -> int:
    """Refuse too few resamples before anything is trained or predicted."""
    from einthoven.evaluate.estimate import BootstrapSettings

    BootstrapSettings(resamples=resamples)
    return resamples


ResamplingUnit = Annotated[str, one_of("record", "patient", help="Unit of the bootstrap.")]
Resamples = Annotated[
    int,
    typer.Option(
        min=0, callback=_check_resamples, help="Bootstrap resamples; 0 for no confidence intervals."
    ),
]


def backbone_options(
    backbone: str,
    assignments: Sequence[str] | None = None,
    *,
    leads: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fields of a backbone's config from `--option` and `--leads`, checked on a network without
    weights.

    An assignment is `key=value`, the value as in TOML, or text without quotes. It replaces the
    default of the same name.

    Raises
    ------
    BackboneError
        If an assignment is malformed or repeated, or the backbone refuses it.
    """
    typed = _parse(assignments, leads)
    options = {**(defaults or {}), **typed}
    if typed:
        import torch

        from einthoven.backbones.registry import entry

        with torch.device("meta"):
            entry(backbone).build(**options)
    return options


def _parse(assignments: Sequence[str] | None, leads: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"leads": lead_names(leads)} if leads is not None else {}
    for text in assignments or ():
        key, equals, value = (part.strip() for part in text.partition("="))
        if not key or not equals:
            raise BackboneError(
                f"--option {text!r} is not an assignment",
                remedy=f"write --option {key or 'KEY'}=VALUE",
            )
        if key in fields:
            other = " (--leads sets it as well)" if key == "leads" and leads else ""
            raise BackboneError(f"--option {key} is repeated{other}", remedy="set every field once")
        fields[key] = _value(value)
    return fields


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def lead_names(text: str) -> tuple[str, ...]:
    """Parse names of leads separated by commas: `I, ii` are I and II.

    Raises
    ------
    BackboneError
        If a name is empty.
    """
    from einthoven.records import canonical_lead

    names = tuple(map(canonical_lead, text.split(",")))
    if not all(names):
        raise BackboneError(f"--leads {text!r} has an empty name", remedy="write --leads I,II,V2")
    return names


def use_threads(threads: int | None) -> None:
    """Set the number of PyTorch's threads."""
    if threads:
        import torch

        torch.set_num_threads(threads)
        note(f"{threads} threads")
