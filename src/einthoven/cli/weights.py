"""The verb that brings weights: convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    file: Annotated[
        Path, typer.Argument(help="A public checkpoint: .pt, .pth, .ckpt, .bin or .safetensors.")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="What to write, and must not exist yet: FILE.safetensors, or a folder with the "
            "weights, a description and a card."
        ),
    ],
    backbone: Annotated[str, typer.Option(help="A name of `einthoven backbones`.")],
    head: Annotated[bool, typer.Option("--head", help="Keep the linear head as well.")] = False,
) -> None:
    """Turn a public checkpoint into safetensors, which hold no code; their licence goes along.

    Nothing in the file is run: a pickle with more than tensors and plain values is refused, as is a
    checkpoint that does not fit the backbone tensor by tensor.
    """
    from einthoven.weights.converted import convert_checkpoint, convert_to_folder

    if out.suffix == ".safetensors":
        convert_checkpoint(backbone, weights=file, out=out, head=head)
    else:
        convert_to_folder(backbone, weights=file, out=out, head=head)
    _tell(backbone, file, out)


def _tell(backbone: str, file: Path, out: Path) -> None:
    from einthoven.backbones.registry import entry
    from einthoven.files import read_metadata
    from einthoven.licences import is_non_commercial
    from einthoven.weights.folder import weights_file

    about, said = entry(backbone), read_metadata(weights_file(out))
    typer.echo(f"Written: {out}")
    typer.echo(f"SHA-256 of {file.name}: {said['sha256']} ({said['checksum']})")
    typer.echo(f"Licence of the public weights: {about.weights_licence}")
    if is_non_commercial(about.weights_licence):
        typer.echo("Not for commercial use, nor is anything that is trained from them.")
    typer.echo(f"They were pretrained on: {about.pretraining_data}")
