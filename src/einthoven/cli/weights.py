"""The verb that brings weights: convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from einthoven.cli.options import Options, backbone_options
from einthoven.cli.progress import shown_warnings


def convert(
    name: Annotated[str, typer.Argument(help="The backbone: a name of `einthoven backbones`.")],
    checkpoint: Annotated[
        Path, typer.Argument(help="A public checkpoint: .pt, .pth, .ckpt, .bin or .safetensors.")
    ],
    bundle: Annotated[
        Path,
        typer.Argument(
            help="What to write, and must not exist yet: a folder with the weights, a description "
            "and a card, or FILE.safetensors."
        ),
    ],
    head: Annotated[bool, typer.Option("--head", help="Keep the linear head as well.")] = False,
    options: Options = None,
) -> None:
    """Turn a public checkpoint into safetensors, which hold no code; their licence goes along.

    Nothing in the file is run: a pickle with more than tensors and plain values is refused, as is a
    checkpoint that does not fit the backbone tensor by tensor.
    """
    from einthoven.weights.converted import convert_checkpoint, convert_to_folder

    write = convert_checkpoint if bundle.suffix == ".safetensors" else convert_to_folder
    with shown_warnings():
        write(name, weights=checkpoint, out=bundle, head=head, **backbone_options(name, options))
    _tell(name, checkpoint, bundle)


def _tell(name: str, checkpoint: Path, out: Path) -> None:
    from einthoven.backbones.registry import entry
    from einthoven.files import read_metadata
    from einthoven.licences import is_non_commercial
    from einthoven.weights.folder import weights_file

    about, said = entry(name), read_metadata(weights_file(out))
    typer.echo(f"Written: {out}")
    typer.echo(f"SHA-256 of {checkpoint.name}: {said['sha256']} ({said['checksum']})")
    typer.echo(f"Licence of the public weights: {about.weights_licence}")
    if is_non_commercial(about.weights_licence):
        typer.echo("Not for commercial use, nor is anything that is trained from them.")
    typer.echo(f"They were pretrained on: {about.pretraining_data}")
    typer.echo(f"PTB-XL among it: {said['contains_ptbxl']}")
