"""The verb that shows the catalogue of backbones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from einthoven.cli.options import AsJson, Options, backbone_options
from einthoven.errors import BackboneError
from einthoven.models import SHIPPED

_INSIDE = {True: "yes", False: "no", None: "unknown"}
_MARKS = {True: "!", False: "", None: "?"}  # the same behind a name of the list
_UNKNOWN = "not known"


def backbones(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One backbone, with everything known.")
    ] = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """The catalogue, a line each: parameters, input, origin. With NAME, one in full.

    In full are its public weights too: where, whose, trained on what. Weights are never downloaded
    unasked. Whether PTB-XL was among their pretraining data matters to whoever tests on it: `!`
    where it was, `?` where their authors' list could not be checked.
    """
    from einthoven.backbones.registry import backbone_names
    from einthoven.models import start_from

    if options and name is None:
        raise BackboneError("--option is of one backbone's config", remedy="name the backbone")
    if name is not None:
        start = start_from(name, random=True)  # the shipped bundle's name is one as well
        network = backbone_options(start.backbone, options, beside=start.options)
        about = _about(start.backbone, centred=start.centred, **network)
        about |= _shipped(name) if name == SHIPPED else {}
        typer.echo(json.dumps(about, indent=1) if as_json else _in_full(about))
        return
    catalogue = {each: _about(each) for each in backbone_names()}
    if as_json:
        typer.echo(json.dumps(catalogue, indent=1))
    else:
        typer.echo(_list(catalogue))


def _about(name: str, *, centred: bool = False, **options: Any) -> dict[str, Any]:
    """The catalogue's entry, and the input that the network itself declares."""
    import torch

    from einthoven.backbones.config import fields_of
    from einthoven.backbones.registry import create_backbone, entry

    known = entry(name)
    about = {key: value for key, value in vars(known).items() if key not in ("build", "mae")}
    about["licence"] = str(known.licence) if known.licence else None
    with torch.device("meta"):  # no weights are drawn
        network = create_backbone(name, **options)
    preparation = network.preparation.centred() if centred else network.preparation
    return {
        "name": name,
        **about,
        **({"parameters": sum(p.numel() for p in network.parameters())} if options else {}),
        "leads": list(preparation.leads),
        "rate_hz": preparation.rate,
        "window_samples": preparation.window,
        "window_seconds": preparation.window / preparation.rate,
        "unit": "mV",
        "preparation": [str(step) for step in preparation.steps],
        "options": fields_of(network.config),
    }


def _shipped(name: str) -> dict[str, Any]:
    """What the bundle that comes with einthoven says otherwise than its network's entry."""
    from einthoven.licences import Licence
    from einthoven.models import WEIGHTS, model_path, read_config, training_history
    from einthoven.report.description import history_text

    folder = model_path(name)
    config = read_config(folder)
    return {
        "name": name,
        "pretraining_data": history_text(training_history(config)),
        "contains_ptbxl": config["provenance"]["contains_ptbxl"],
        "weights_from": f"comes with einthoven, {folder}",
        "weights_name": name,
        "weights_size": f"{(folder / WEIGHTS).stat().st_size:,} bytes",
        "weights_sha256": config["weights_sha256"],
        "licence": str(Licence.from_dict(config)),
    }


def _in_full(about: Mapping[str, Any]) -> str:
    """One fact a line; the longest stay whole, to be copied."""
    steps = [f"{place}. {step}" for place, step in enumerate(about["preparation"], 1)]
    options = [f"{key}={json.dumps(value)}" for key, value in about["options"].items()]
    facts = [
        ("parameters", f"{about['parameters']:,} without a head"),
        ("input", _input(about)),
        ("leads", " ".join(about["leads"])),
        *(("preparation" if i == 0 else "", step) for i, step in enumerate(steps)),
        ("pretraining data", about["pretraining_data"] or "none"),
        ("PTB-XL inside", _inside(about)),
        ("weights", about["weights_from"] or "none"),
        ("search for", about["weights_name"] or _UNKNOWN),
        ("file size", about["weights_size"] or _UNKNOWN),
        ("SHA-256", about["weights_sha256"] or _UNKNOWN),
        ("licence", about["licence"] or "none: no public weights"),
        ("recipe", about["recipe"] or "any that starts from pretrained weights"),
        ("paper", about["paper"]),
        *(("options" if i == 0 else "", each) for i, each in enumerate(options)),
    ]
    lines = [f"  {title:<17} {text}" for title, text in facts]
    return "\n".join([f"{about['name']}: {about['summary']}", *lines])


def _inside(about: Mapping[str, Any]) -> str:
    more = "; yes for its fine-tuned classifiers" if about["classifiers_saw_ptbxl"] else ""
    return _INSIDE[about["contains_ptbxl"]] + more


def _input(about: Mapping[str, Any]) -> str:
    leads = len(about["leads"])
    return (
        f"{leads} lead{'s' if leads > 1 else ''}, {about['rate_hz']:g} Hz, "
        f"{about['window_seconds']:g} s ({about['window_samples']} samples), from mV"
    )


def _list(catalogue: Mapping[str, Mapping[str, Any]]) -> str:
    """A line each, of at most 80 columns, in two groups."""
    groups = {
        "Foundation models, pretrained first (* public weights: ! saw PTB-XL, ? unknown)": [
            about for about in catalogue.values() if not about["recipe"]
        ],
        "Made for the task, from random weights, each by its own recipe": [
            about for about in catalogue.values() if about["recipe"]
        ],
    }
    lines = []
    for title, members in groups.items():
        lines += [title, *map(_line, members), ""]
    return "\n".join(
        [*lines, f"In full: einthoven backbones NAME ({SHIPPED} too); all of it: --json"]
    )


def _line(about: Mapping[str, Any]) -> str:
    public = not about["recipe"] and about["weights_from"] is not None
    leads = len(about["leads"])
    size = (
        f"{leads:>2} lead{'s' if leads > 1 else ' '} {about['rate_hz']:>3g} Hz "
        f"{about['window_seconds']:g} s"
    )
    name = about["name"] + ("*" + _MARKS[about["contains_ptbxl"]] if public else "")
    return f"{name:<19} {about['parameters']:>11,}  {size:<22} {about['origin']}".rstrip()
