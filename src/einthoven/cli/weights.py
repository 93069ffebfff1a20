"""The verb that brings weights: convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from einthoven.cli.options import Options, backbone_options
from einthoven.cli.progress import shown_warnings
from einthoven.files import Json


def convert(
    name: Annotated[str, typer.Argument(help="The backbone: a name of `einthoven backbones`.")],
    checkpoint: Annotated[
        Path, typer.Argument(help="A public checkpoint: .pt, .pth, .ckpt, .bin or .safetensors.")
    ],
    folder: Annotated[
        Path,
        typer.Argument(help="The model folder to write: weights, config and card."),
    ],
    head: Annotated[bool, typer.Option("--head", help="Keep the linear head as well.")] = False,
    options: Options = None,
) -> None:
    """Turn a public checkpoint into safetensors, which hold no code; their licence goes along.

    Nothing in the file is run: a pickle with more than tensors and plain values is refused, as is a
    checkpoint that does not fit the backbone tensor by tensor.
    """
    from einthoven.weights.convert import convert_checkpoint

    chosen = backbone_options(name, options)
    with shown_warnings():
        config = convert_checkpoint(name, weights=checkpoint, out=folder, head=head, **chosen)
    _print_summary(config, folder)


def _print_summary(config: Json, folder: Path) -> None:
    from einthoven.licences import Licence

    public, licence = config["provenance"]["public_weights"], Licence.from_dict(config)
    checksum = {True: "as in the catalogue", False: "not that of the catalogue", None: "unverified"}
    answer = {True: "yes", False: "no", None: "unknown"}
    typer.echo(f"Model: {folder}")
    typer.echo(
        f"SHA-256 of {public['file']}: {public['sha256']} "
        f"({checksum[public['sha256_matches_catalogue']]})"
    )
    typer.echo(f"Licence: {licence}")
    if licence.commercial_use is False:
        typer.echo(
            "Commercial use is forbidden, also of models that are trained from these weights."
        )
    if "pretraining_data" in public:
        typer.echo(f"Pretraining data: {public['pretraining_data']}")
        typer.echo(f"PTB-XL in the pretraining data: {answer[public['contains_ptbxl']]}")
