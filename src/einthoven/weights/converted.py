"""A public checkpoint as a safetensors file in our own naming, with where it came from."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import Any

from einthoven.backbones.registry import entry
from einthoven.errors import WeightsError
from einthoven.files import write_tensors
from einthoven.weights.load import load_backbone, load_classifier

__all__ = ["convert_checkpoint"]


def convert_checkpoint(
    name: str,
    *,
    weights: str | PathLike[str],
    out: str | PathLike[str],
    head: bool = False,
    **overrides: Any,
) -> dict[str, str]:
    """Read a checkpoint strictly and write what a backbone takes of it.

    Parameters
    ----------
    name : str
        A registered backbone.
    weights : path
        A checkpoint that `einthoven.weights.load_backbone` reads.
    out : path
        The file to write; `load_backbone`, ``create_classifier(weights=...)`` and `posttrain` read
        it as they read the original.
    head : bool
        Keep the linear head too, for `einthoven.weights.load_classifier`.
    **overrides
        Fields of the backbone's config.

    Returns
    -------
    dict of str to str
        The file's metadata: backbone, name and SHA-256 of the original, whether that is the
        checksum that others recorded, licence and pretraining data of the public weights.

    Raises
    ------
    WeightsError
        As `load_backbone`; when the file has no head that could be kept; when `out` exists.
    BackboneError
        For an unknown name or override.
    """
    weights, out = Path(weights), Path(out)
    if out.exists():
        raise WeightsError(f"{out} exists already", remedy="name another file, or remove it.")
    read = load_classifier if head else load_backbone
    model = read(name, weights=weights, **overrides)
    metadata = _origin(name, weights)
    write_tensors(out, model.state_dict(), metadata)
    return metadata


def _origin(name: str, weights: Path) -> dict[str, str]:
    about = entry(name)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = "as recorded by others" if digest == about.weights_sha256 else "another"
    return {
        "format": "einthoven-converted",
        "backbone": name,
        "converted_from": weights.name,
        "sha256": digest,
        "checksum": known if about.weights_sha256 else "none recorded",
        "public_weights_licence": about.weights_licence,
        "public_weights_data": about.pretraining_data,
    }
