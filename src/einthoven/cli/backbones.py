"""Commands for networks: backbones, convert-weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from einthoven.cli.options import AsJson, Options, backbone_options, output_folder
from einthoven.cli.progress import echo
from einthoven.errors import BackboneError
from einthoven.files import Json
from einthoven.models import SHIPPED
from einthoven.report.format import counted

_ANSWERS = {True: "yes", False: "no", None: "unknown"}
_PTBXL_MARKS = {True: "!", False: "", None: "?"}
_UNKNOWN = "unknown"


def backbones(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show one backbone in full.")
    ] = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """List the catalogue of backbones: parameters, input, origin; with NAME, one in full.

    The full entry includes the public weights: source, licence, pretraining data. Weights are never
    downloaded without consent. A mark shows whether the pretraining data contain PTB-XL, which
    biases results on PTB-XL: `!` if they do, `?` if that could not be checked.
    """
    from einthoven.backbones.registry import backbone_names

    if options and name is None:
        raise BackboneError("--option applies to one backbone", remedy="name the backbone")
    if name is not None:
        entry = _entry_of(name, options)
        echo(json.dumps(entry, indent=1) if as_json else _full_text(entry))
        return
    catalogue = {backbone: _entry(backbone) for backbone in backbone_names()}
    echo(json.dumps(catalogue, indent=1) if as_json else _list_text(catalogue))


def _entry_of(name: str, assignments: list[str] | None) -> Json:
    """Catalogue entry of a backbone or of the included model, with options."""
    from einthoven.models import initialisation_of

    start = initialisation_of(name, random=True)
    options = backbone_options(start.backbone, assignments, defaults=start.options)
    entry = _entry(start.backbone, centred=start.centred, **options)
    return entry | _shipped(name) if name == SHIPPED else entry


def _entry(name: str, *, centred: bool = False, **options: Any) -> Json:
    """Catalogue entry of a backbone, with the input that the network itself declares."""
    import torch

    from einthoven.backbones.registry import create_backbone, entry

    registered = entry(name)
    hidden = ("network", "config", "mae")
    fields = {key: value for key, value in vars(registered).items() if key not in hidden}
    fields["family"] = registered.family
    fields["licence"] = str(registered.licence) if registered.licence else None
    with torch.device("meta"):  # without weights
        network = create_backbone(name, **options)
    preparation = network.preparation.centred() if centred else network.preparation
    fields["parameters"] = sum(p.numel() for p in network.parameters())
    return {
        **fields,
        "name": name,
        "leads": list(preparation.leads),
        "rate_hz": preparation.rate,
        "window_samples": preparation.window,
        "window_seconds": preparation.window / preparation.rate,
        "unit": "mV",
        "preparation": [str(step) for step in preparation.steps],
        "options": network.config.options,
    }


def _shipped(name: str) -> Json:
    """Fields in which the included model differs from its network's entry."""
    from einthoven.licences import Licence
    from einthoven.models import WEIGHTS, model_path, read_config, training_history
    from einthoven.report.description import history_text

    folder = model_path(name)
    config = read_config(folder)
    return {
        "name": name,
        "pretraining_data": history_text(training_history(config)),
        "contains_ptbxl": config["provenance"]["contains_ptbxl"],
        "weights_from": f"included, {folder}",
        "weights_name": name,
        "weights_file": WEIGHTS,
        "weights_size": f"{(folder / WEIGHTS).stat().st_size:,} bytes",
        "weights_sha256": config["weights_sha256"],
        "licence": str(Licence.from_dict(config)),
    }


def _full_text(entry: Json) -> str:
    """One fact a line; lines are not wrapped, so that they can be copied."""
    steps = [f"{place}. {step}" for place, step in enumerate(entry["preparation"], 1)]
    options = [f"{key}={json.dumps(value)}" for key, value in entry["options"].items()]
    ptbxl = _ANSWERS[entry["contains_ptbxl"]] if entry["weights_from"] else "no public weights"
    if entry["classifiers_saw_ptbxl"]:
        ptbxl += "; yes for its fine-tuned classifiers"
    facts = [
        ("parameters", f"{entry['parameters']:,} without a head"),
        (
            "input",
            f"{counted(len(entry['leads']), 'lead')}, {entry['rate_hz']:g} Hz, "
            f"{entry['window_seconds']:g} s ({entry['window_samples']} samples), in mV",
        ),
        ("leads", " ".join(entry["leads"])),
        *(("preparation" if i == 0 else "", step) for i, step in enumerate(steps)),
        ("pretraining data", entry["pretraining_data"] or "none"),
        ("contains PTB-XL", ptbxl),
        ("weights", entry["weights_from"] or "no public weights"),
        ("search for", entry["weights_name"] or _UNKNOWN),
        ("file", entry["weights_file"] or _UNKNOWN),
        ("file size", entry["weights_size"] or _UNKNOWN),
        ("SHA-256", entry["weights_sha256"] or _UNKNOWN),
        ("licence", entry["licence"] or _UNKNOWN),
        ("recipe", entry["recipe"] or "any that starts from pretrained weights"),
        ("paper", entry["paper"]),
        *(("options" if i == 0 else "", option) for i, option in enumerate(options)),
    ]
    lines = [f"  {title:<17} {text}" for title, text in facts]
    return "\n".join([f"{entry['name']}: {entry['summary']}", *lines])


def _list_text(catalogue: Mapping[str, Json]) -> str:
    """One line a backbone, of at most 80 columns, in two groups."""
    general = [_line(entry) for entry in catalogue.values() if not entry["recipe"]]
    specific = [_line(entry) for entry in catalogue.values() if entry["recipe"]]
    lines = [
        "Foundation models (* public weights: ! PTB-XL in pretraining, ? unknown)",
        *general,
        "",
        "Task-specific networks, trained from random weights by their recipes",
        *specific,
        "",
        f"In full: einthoven backbones NAME (also {SHIPPED}); all of them: --json",
    ]
    return "\n".join(lines)


def _line(entry: Json) -> str:
    is_public = not entry["recipe"] and entry["weights_from"] is not None
    name = entry["name"] + ("*" + _PTBXL_MARKS[entry["contains_ptbxl"]] if is_public else "")
    leads = counted(len(entry["leads"]), "lead")
    size = f"{leads:>8} {entry['rate_hz']:>3g} Hz {entry['window_seconds']:g} s"
    return f"{name:<19} {entry['parameters']:>11,}  {size:<22} {entry['origin']}".rstrip()


def convert_weights(
    name: Annotated[str, typer.Argument(help="The backbone: a name of `einthoven backbones`.")],
    checkpoint: Annotated[
        Path, typer.Argument(help="A public checkpoint: .pt, .pth, .ckpt, .bin or .safetensors.")
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            callback=output_folder, help="The model folder to write: weights, config and card."
        ),
    ],
    head: Annotated[bool, typer.Option("--head", help="Keep the linear head as well.")] = False,
    options: Options = None,
) -> None:
    """Convert a public checkpoint to a model folder with safetensors and the licence.

    Code in the checkpoint is never executed. A pickle with anything but tensors and plain values is
    refused, and so is a checkpoint that does not match the backbone tensor by tensor.
    """
    from einthoven.weights.public import convert_checkpoint

    fields = backbone_options(name, options)
    config = convert_checkpoint(name, weights=checkpoint, out=folder, head=head, **fields)
    _print_origin(config, folder)


def _print_origin(config: Json, folder: Path) -> None:
    from einthoven.licences import Licence

    licence, provenance = Licence.from_dict(config), config["provenance"]
    source = provenance["public_weights"] or provenance["initial_weights"]
    checksum = {True: "as in the catalogue", False: "not that of the catalogue", None: "unverified"}
    echo(f"Model: {folder}")
    echo(
        f"SHA-256 of {source['file']}: {source['sha256']} "
        f"({checksum[source.get('sha256_matches_catalogue')]})"
    )
    echo(f"Licence: {licence}")
    if licence.commercial_use is False:
        echo("Commercial use is forbidden, also of models trained from these weights.")
    if "pretraining_data" in source:
        echo(f"Pretraining data: {source['pretraining_data']}")
        echo(f"PTB-XL in the pretraining data: {_ANSWERS[source['contains_ptbxl']]}")
