"""A model to a folder and back, bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import create_backbone
from einthoven.bundle import Bundle, load_bundle, memory_in
from einthoven.errors import BackboneError, EinthovenError, HubError
from einthoven.files import (
    read_json,
    read_metadata,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from einthoven.hub.card import card_of
from einthoven.predictions import Calibration
from einthoven.shipped import ABOUT, bundle_folder
from einthoven.signals.prepare import Preparation
from einthoven.version import __version__
from einthoven.weights.folder import LICENCE
from einthoven.weights.public import PublicData

__all__ = ["CARD", "CONFIG", "PREPROCESSOR", "WEIGHTS", "from_pretrained", "save_pretrained"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, CARD = "preprocessor_config.json", "README.md"
FORMAT = "einthoven-pretrained-1"
Model = Backbone | Classifier | Bundle

_NEEDED = ("architectures", "backbone", "backbone_options", "preparation", "weights_sha256")
_AGAIN = "copy the whole folder again"
_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def save_pretrained(
    model: Model,
    path: str | Path,
    *,
    licence: str | None = None,
    tags: Sequence[str] = (),
    source: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a backbone, a classifier or a bundle as a folder that `from_pretrained` reads.

    Parameters
    ----------
    model : Backbone, Classifier or Bundle
        A bundle keeps its preparation, calibration and description, and what it remembers of the
        records it has seen.
    path : path
        The folder.
    licence : str, optional
        Of these weights: an identifier of the hub, such as ``cc-by-4.0``, or words. Without it the
        card says what a bundle or the source says, or `unknown`. It goes along with the weights.
    tags : sequence of str
        For the card, beside `ecg`, the family's name and so on.
    source : path, optional
        The file that the weights came from, if einthoven wrote it. What it says of itself goes
        along, such as which records it has seen (see `einthoven.stages.overlap`).
    overwrite : bool
        Replace the model that is in the folder.

    Returns
    -------
    Path
        The folder; `config.json` is written last and makes it complete.

    Raises
    ------
    HubError
        When the folder holds a model already.
    """
    folder = Path(path)
    if (folder / CONFIG).exists() and not overwrite:
        raise HubError(
            f"{folder} holds a model already", remedy="name another folder, or pass overwrite=True"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    said = dict(model.memory) if isinstance(model, Bundle) else {}
    said |= read_metadata(Path(source)) if source is not None else {}
    said |= _terms(model, licence)
    config = _config(model)
    named = {"format": FORMAT, "backbone": config["backbone"]}
    write_tensors(folder / WEIGHTS, _network(model).state_dict(), said | named)
    config["weights_sha256"] = _sha256(folder / WEIGHTS)
    preparation = Preparation.from_dict(config["preparation"])
    write_json(folder / PREPROCESSOR, _preprocessor(preparation))
    write_text(folder / CARD, card_of(config, said, licence=licence, tags=tags))
    write_json(folder / CONFIG, config)
    return folder


def from_pretrained(path_or_name: str | Path, *, revision: str | None = None) -> Model:
    """Read a folder that `save_pretrained` wrote, or a bundle's; or fetch one from the hub.

    Parameters
    ----------
    path_or_name : path or str
        A folder, or the name of a bundle that came with einthoven; where there is neither,
        `owner/model` on the hub.
    revision : str, optional
        Branch, tag or commit on the hub; name a commit to get the same weights for ever.

    Returns
    -------
    Backbone, Classifier or Bundle
        What was saved, with the same weights bit for bit; in eval mode, on the CPU.

    Raises
    ------
    HubError
        When the folder is incomplete, damaged or of another version, or cannot be fetched.
    BundleError
        For a damaged bundle folder.
    """
    folder = bundle_folder(path_or_name)
    if not folder.is_dir():
        folder = _fetched(str(path_or_name), revision)
    if (folder / ABOUT).is_file() and not (folder / CONFIG).is_file():
        return load_bundle(folder)
    config = _read_config(folder)
    weights = _weights(folder, config)
    try:
        model = _built(config, folder)
        network = _network(model)
        network.load_state_dict(weights, assign=True)
    except (KeyError, TypeError, AttributeError) as error:
        raise HubError(f"{folder / CONFIG} is damaged: {error!r}", remedy=_AGAIN) from error
    except RuntimeError as error:
        raise HubError(
            f"{folder}: the weights do not fit {config['backbone']}: {error}", remedy=_AGAIN
        ) from error
    network.eval()
    if isinstance(model, Bundle):
        network.requires_grad_(False)
    _check_preparation(model, config, folder)
    return model


# ---------------------------------------------------------------------- writing


def _network(model: Model) -> Backbone | Classifier:
    return model.classifier if isinstance(model, Bundle) else model


def _terms(model: Model, licence: str | None) -> dict[str, str]:
    """What the file of weights is to say of its terms, and of what public weights in it have seen.

    Whoever trains from the folder finds it there (`einthoven.weights.folder`, `.public`).
    """
    about = model.about if isinstance(model, Bundle) else {}
    seen = PublicData.of_record(about.get("backbone", ""), about.get("public_weights"))
    stated = licence or (model.licence if isinstance(model, Bundle) else "")
    return ({LICENCE: stated} if stated else {}) | (seen.metadata() if seen else {})


def _config(model: Model) -> dict[str, Any]:
    network = _network(model)
    backbone = network.backbone if isinstance(network, Classifier) else network
    fields = dataclasses.fields(backbone.config)
    options = {f.name: getattr(backbone.config, f.name) for f in fields if f.name != "name"}
    kind = next(kind for kind in (Bundle, Classifier, Backbone) if isinstance(model, kind))
    config: dict[str, Any] = {
        "format": FORMAT,
        "einthoven_version": __version__,
        "model_type": "einthoven",
        "architectures": [kind.__name__],
        "backbone": backbone.name,
        "backbone_options": options,
        "hidden_size": backbone.feature_dim,
        "preparation": model.preparation.to_dict(),
    }
    if isinstance(network, Classifier):
        config |= _labels(network, model.labels if isinstance(model, Bundle) else network.labels)
        config["head_dropout"] = network.head_dropout.p
    if isinstance(model, Bundle):
        calibration = model.calibration
        config["bundle"] = {
            "aggregate": model.aggregate,
            "calibration": None if calibration is None else calibration.to_dict(),
            "about": model.about,
        }
    return config


def _labels(network: Classifier, names: Sequence[str] | None) -> dict[str, Any]:
    """In the hub's manner; unnamed outputs are called LABEL_0 and so on there."""
    shown = names or [f"LABEL_{i}" for i in range(network.head.out_features)]
    return {
        "problem_type": "multi_label_classification",
        "id2label": {str(i): name for i, name in enumerate(shown)},
        "label2id": {name: i for i, name in enumerate(shown)},
        "labels_have_names": names is not None,
    }


def _preprocessor(preparation: Preparation) -> dict[str, Any]:
    return {
        "feature_extractor_type": "EinthovenPreparation",
        "unit": "mV",
        "sampling_rate": preparation.rate,
        "window": preparation.window,
        "description": preparation.describe(),
        **preparation.to_dict(),
    }


def _sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# ---------------------------------------------------------------------- reading


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise HubError(
            f"{folder} is no model: {CONFIG} is missing",
            remedy="name a folder that save_pretrained wrote",
        )
    config = _read(folder / CONFIG)
    if config.get("format") != FORMAT:
        raise HubError(
            f"{folder / CONFIG}: format {config.get('format')!r}, this version reads {FORMAT!r}",
            remedy="einthoven reads its own models: other checkpoints by load_backbone",
        )
    missing = [key for key in _NEEDED if key not in config]
    if missing:
        raise HubError(f"{folder / CONFIG} lacks {', '.join(missing)}", remedy=_AGAIN)
    return config


def _read(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except (EinthovenError, UnicodeDecodeError) as error:
        raise HubError(f"{file} is damaged", remedy=_AGAIN) from error
    if not isinstance(content, dict):
        raise HubError(f"{file} holds no table", remedy=_AGAIN)
    return content


def _built(config: Mapping[str, Any], folder: Path) -> Model:
    """The model without weights: no numbers are drawn."""
    options = {key: _tuple(value) for key, value in config["backbone_options"].items()}
    with torch.device("meta"):
        try:
            backbone = create_backbone(config["backbone"], **options)
        except BackboneError as error:
            raise HubError(
                f"{folder}: {error.problem}",
                remedy=f"load it with the version that saved it, {config.get('einthoven_version')}",
            ) from error
        if config["architectures"] == [Backbone.__name__]:
            return backbone
        names = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
        classifier = Classifier(
            backbone,
            names if config["labels_have_names"] else len(names),
            head_dropout=config["head_dropout"],
        )
    if config["architectures"] == [Classifier.__name__]:
        return classifier
    about = config["bundle"]
    return Bundle(
        classifier,
        tuple(names),
        Preparation.from_dict(config["preparation"]),
        aggregate=_tuple(about["aggregate"]),
        about=about["about"],
        calibration=about["calibration"] and Calibration.from_dict(about["calibration"]),
        memory=memory_in(folder / WEIGHTS),
    )


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def _weights(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    file = folder / WEIGHTS
    if not file.is_file():
        raise HubError(f"{file} is missing", remedy=_AGAIN)
    if _sha256(file) != config["weights_sha256"]:
        raise HubError(
            f"{file} is not the file that {CONFIG} was written for: its checksum is another",
            remedy=_AGAIN,
        )
    # A file keeps tensors at multiples of 8 bytes, PyTorch at multiples of 64: from a place in
    # between, some processors add up in another order, and the bits of an answer are others.
    return {name: tensor.clone() for name, tensor in read_tensors(file)[0].items()}


def _check_preparation(model: Model, config: Mapping[str, Any], folder: Path) -> None:
    """Refuse signals to be prepared in another way than that of the weights."""
    saved = config["preparation"]
    if Preparation.from_dict(saved) != model.preparation:
        raise HubError(
            f"{folder}: this version of einthoven prepares signals for {config['backbone']} "
            f"otherwise than version {config.get('einthoven_version')}, which saved it",
            remedy="load it with that version",
        )
    if (folder / PREPROCESSOR).is_file():
        shown = _read(folder / PREPROCESSOR)
        if any(shown.get(key) != saved[key] for key in saved):
            raise HubError(
                f"{folder}: {PREPROCESSOR} and {CONFIG} name different preparations",
                remedy="copy the whole folder again, or save the model again",
            )


# ---------------------------------------------------------------------- the hub


def _fetched(name: str, revision: str | None) -> Path:
    if not _ON_THE_HUB.fullmatch(name):
        raise HubError(
            f"{name} is no folder", remedy="check the path; a name on the hub is `owner/model`"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise HubError(
            f"{name} is no folder here, and huggingface_hub, which could fetch it, is not "
            "installed",
            remedy="pip install 'einthoven[hub]', or download the folder and name it",
        ) from error
    wanted = [CONFIG, WEIGHTS, PREPROCESSOR, CARD]
    try:
        return Path(snapshot_download(repo_id=name, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        raise HubError(
            f"{name} is no folder here, and could not be fetched from the hub: {error}",
            remedy="check the path or the name, and the network; private models need a login "
            "(`hf auth login`)",
        ) from error
