"""Folders that hold weights, and the terms of a file of weights as far as anything tells them."""

from __future__ import annotations

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from einthoven.backbones.registry import entry
from einthoven.errors import WeightsError
from einthoven.files import read_metadata
from einthoven.weights.state import recognise

__all__ = [
    "ABOUT",
    "INPUT_SCALE",
    "LICENCE",
    "WEIGHTS",
    "described",
    "input_scale_of",
    "is_ours",
    "licence_of_weights",
    "run_of",
    "weights_file",
]

ABOUT, WEIGHTS = "bundle.json", "weights.safetensors"
LICENCE = "public_weights_licence"  # of a converted file's metadata
INPUT_SCALE = "input_scale"  # of a pretrained encoder's metadata
# Of a converted checkpoint or a bundle, of `save_pretrained`, of a pretraining run.
_NAMES = (WEIGHTS, "model.safetensors", "encoder.safetensors")
_RUN, _DEPTH = "run.json", 3


def weights_file(path: str | PathLike[str]) -> Path:
    """The file of weights that a path means: itself, or the one inside a folder.

    Raises
    ------
    WeightsError
        When a folder has none, or its file is not the one that its `bundle.json` names.
    """
    folder = Path(path)
    if not folder.is_dir():
        return folder
    found = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if found is None:
        raise WeightsError(
            f"{folder}: none of {', '.join(_NAMES)} is in this folder",
            remedy="name the file of weights, or a folder that einthoven wrote.",
        )
    expected = described(found).get("checksums", {}).get(found.name)
    if expected and _sha256(found) != expected:
        raise WeightsError(
            f"{found} is damaged: its SHA-256 is not the one in {ABOUT}",
            remedy="copy the folder again.",
        )
    return found


def licence_of_weights(name: str, weights: str | PathLike[str]) -> str:
    """Terms of a file of weights: what it says, or what lies beside it, or the catalogue.

    Parameters
    ----------
    name : str
        The backbone that the file is read as.
    weights : path
        As for `load_backbone`.

    Returns
    -------
    str
        Empty for a file of our own that records none, and where there are no public weights. A
        file in the names of a public release counts as that release.
    """
    file = weights_file(weights)
    said = read_metadata(file)
    if LICENCE in said:
        return said[LICENCE]
    about = described(file)
    if about:
        return str(about.get("licence", ""))
    if said or is_ours(file):
        asked = run_of(file).get("request", {})
        return str((asked.get("weights") or {}).get("licence", ""))
    licence = entry(name).licence
    return str(licence) if licence else ""


def input_scale_of(weights: str | PathLike[str]) -> float | None:
    """Millivolts that counted as one in the inputs that an encoder of ours was trained on.

    Parameters
    ----------
    weights : path
        As for `load_backbone`.

    Returns
    -------
    float or None
        None where the file, or the bundle that it belongs to, says nothing of it.
    """
    file = weights_file(weights)
    said: Any = read_metadata(file).get(INPUT_SCALE)
    if said is None:
        said = described(file).get("backbone_options", {}).get("scale")
    return None if said is None else float(said)


def described(file: Path) -> dict[str, Any]:
    """The `bundle.json` that a file belongs to; empty without."""
    about = _json(file.with_name(ABOUT))
    return about if file.name in about.get("checksums", {}) else {}


def run_of(file: Path) -> dict[str, Any]:
    """The `run.json` of the run folder that a checkpoint lies in; empty elsewhere."""
    folders = list(file.resolve().parents)[:_DEPTH]
    return next(filter(None, (_json(folder / _RUN) for folder in folders)), {})


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_ours(file: Path) -> bool:
    """Whether a safetensors file has our names; a pickle is taken for somebody else's."""
    try:
        with safe_open(str(file), framework="pt") as handle:
            shapes = {key: handle.get_slice(key).get_shape() for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return False
    found = recognise({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    return found is not None and found[1].startswith("einthoven")


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
