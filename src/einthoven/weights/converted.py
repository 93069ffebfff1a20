"""A public checkpoint as safetensors in our own naming, with where it came from and its terms."""

from __future__ import annotations

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import entry
from einthoven.errors import WeightsError
from einthoven.files import read_metadata, write_json, write_tensors, write_text
from einthoven.weights.folder import (
    ABOUT,
    LICENCE,
    WEIGHTS,
    described,
    is_ours,
    weights_file,
)
from einthoven.weights.load import load_backbone, load_classifier
from einthoven.weights.public import INSIDE, PublicData, public_data

__all__ = ["CARD", "FORMAT", "convert_checkpoint", "convert_to_folder"]

FORMAT, CARD = "einthoven-encoder-1", "README.md"
Model = Backbone | Classifier


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
        As `load_backbone`; for a file of einthoven's own; when the file has no head that could be
        kept; when `out` exists.
    BackboneError
        For an unknown name or override.
    """
    weights, out = _foreign(weights), _new(out)
    model = _read(name, weights, head=head, **overrides)
    metadata = _origin(name, weights, overrides)
    write_tensors(out, model.state_dict(), metadata)
    return metadata


def convert_to_folder(
    name: str,
    *,
    weights: str | PathLike[str],
    out: str | PathLike[str],
    head: bool = False,
    **overrides: Any,
) -> dict[str, Any]:
    """Read a checkpoint strictly and write a folder that says what it is.

    ::

        weights.safetensors   what `convert_checkpoint` writes
        bundle.json           backbone, Preparation, licence, origin, parameters, checksum
        README.md             the same in words

    Parameters are those of `convert_checkpoint`; `out` is the folder, and every reader of weights
    takes it.

    Returns
    -------
    dict
        The contents of `bundle.json`.

    Raises
    ------
    WeightsError, BackboneError
        As `convert_checkpoint`.
    """
    weights, out = _foreign(weights), _new(out)
    model = _read(name, weights, head=head, **overrides)
    metadata = _origin(name, weights, overrides)
    write_tensors(out / WEIGHTS, model.state_dict(), metadata)
    about = _about(name, model, metadata, overrides)
    about["checksums"] = {WEIGHTS: _sha256(out / WEIGHTS)}
    write_text(out / CARD, _card(about))
    write_json(out / ABOUT, about)
    return about


def _foreign(weights: str | PathLike[str]) -> Path:
    """The file of weights, if somebody else wrote it: of ours, origin and terms would be lost."""
    file = weights_file(weights)
    if read_metadata(file) or described(file) or is_ours(file):
        raise WeightsError(
            f"{weights} is einthoven's own already",
            remedy="name it as it is: whatever takes weights reads it.",
        )
    return file


def _new(out: str | PathLike[str]) -> Path:
    path = Path(out)
    if path.exists():
        raise WeightsError(f"{path} exists already", remedy="name another file, or remove it.")
    return path


def _read(name: str, weights: Path, *, head: bool, **overrides: Any) -> Model:
    if head:
        return load_classifier(name, weights=weights, **overrides)
    return load_backbone(name, weights=weights, **overrides)


def _origin(name: str, weights: Path, overrides: dict[str, Any]) -> dict[str, str]:
    about, digest, seen = entry(name), _sha256(weights), public_data(name, weights)
    seen = seen or PublicData(name, about.pretraining_data or "unknown", about.contains_ptbxl)
    known = "as recorded by others" if digest == about.weights_sha256 else "another"
    origin = {
        "format": "einthoven-converted",
        "backbone": name,
        "converted_from": weights.name,
        "sha256": digest,
        "checksum": known if about.weights_sha256 else "none recorded",
        LICENCE: about.weights_licence,
        **seen.metadata(),
    }
    return origin | ({"backbone_options": json.dumps(overrides)} if overrides else {})


def _about(
    name: str, model: Model, origin: dict[str, str], overrides: dict[str, Any]
) -> dict[str, Any]:
    catalogue, preparation = entry(name), model.preparation
    return {
        "format": FORMAT,
        "backbone": name,
        "backbone_options": overrides,
        "head": isinstance(model, Classifier),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "preparation": preparation.to_dict(),
        "preparation_text": preparation.describe(),
        "licence": catalogue.weights_licence,
        "commercial_use": catalogue.licence.commercial_use if catalogue.licence else None,
        "pretraining_data": catalogue.pretraining_data,
        "contains_ptbxl": next(k for k, text in INSIDE.items() if text == origin["contains_ptbxl"]),
        "paper": catalogue.paper,
        "source": {
            "file": origin["converted_from"],
            "sha256": origin["sha256"],
            "checksum": origin["checksum"],
            "from": catalogue.weights_from,
        },
    }


def _card(about: dict[str, Any]) -> str:
    name, what = about["backbone"], "Network with its head" if about["head"] else "Encoder"
    steps = about["preparation_text"].split("; ")
    sections = {
        "Licence": _terms(about),
        "Origin": _source(about),
        "Pretraining data": f"{about['pretraining_data']}.\n\n"
        f"PTB-XL among them: {INSIDE[about['contains_ptbxl']]}.",
        "Preparation of signals": "\n".join(f"{i}. {step}" for i, step in enumerate(steps, 1)),
        "How to use": _how_to_use(name, about["backbone_options"]),
    }
    parts = [f"# {name}", f"{what}, {about['parameters']:,} parameters."]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def _how_to_use(name: str, options: dict[str, Any]) -> str:
    typed = "".join(f" --option '{key}={json.dumps(value)}'" for key, value in options.items())
    named = "".join(f", {key}={value!r}" for key, value in options.items())
    return (
        f"```sh\neinthoven posttrain COHORT --backbone {name} --weights FOLDER{typed} --out RUN\n"
        f'```\n\nor `einthoven.load_backbone("{name}", weights="FOLDER"{named})`, where `FOLDER` '
        "is the folder of this card."
    )


def _terms(about: dict[str, Any]) -> str:
    if about["commercial_use"]:
        return str(about["licence"])
    return (
        f"{about['licence']}\n\n**Not for commercial use.** That holds for everything that is "
        "trained from these weights; einthoven repeats it in their bundles, cards and reports."
    )


def _source(about: dict[str, Any]) -> str:
    source = about["source"]
    return (
        f"Converted by einthoven from `{source['file']}`, SHA-256 `{source['sha256']}` (checksum "
        f"of the public file: {source['checksum']}).\n\nTo be had from: {source['from']}.\n\n"
        f"Paper: {about['paper']}."
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
