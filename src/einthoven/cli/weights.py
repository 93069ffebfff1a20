"""The verb that brings weights: convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    file: Annotated[
        Path, typer.Argument(help="A public checkpoint: .pt, .pth, .ckpt, .bin or .safetensors.")
    ],
    out: Annotated[Path, typer.Argument(help="Safetensors file to write; it must not exist yet.")],
    backbone: Annotated[str, typer.Option(help="A name of `einthoven backbones`.")],
    head: Annotated[bool, typer.Option("--head", help="Keep the linear head as well.")] = False,
) -> None:
    """Turn a public checkpoint into a safetensors file that holds no code.

    Nothing in the file is run: a pickle with more than tensors and plain values is refused, as is a
    checkpoint that does not fit the backbone tensor by tensor.
    """
    from einthoven.weights.converted import convert_checkpoint

    about = convert_checkpoint(backbone, weights=file, out=out, head=head)
    typer.echo(f"Written: {out}")
    typer.echo(f"SHA-256 of {about['converted_from']}: {about['sha256']} ({about['checksum']})")
    typer.echo(f"Licence of the public weights: {about['public_weights_licence']}")
    typer.echo(f"They were pretrained on: {about['public_weights_data']}")
