"""Read and write model folders."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from einthoven import __version__
from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import create_backbone, entry
from einthoven.errors import (
    BackboneError,
    CalibrationError,
    CohortError,
    EvaluationError,
    ModelError,
    PreparationError,
)
from einthoven.files import (
    CONFIG_FILE,
    EVALUATION_FILE,
    Json,
    check_output,
    file_sha256,
    read_json,
    read_metadata,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from einthoven.licences import Licence, LicenceWarning
from einthoven.models.config import (
    CARD,
    COPY_AGAIN,
    CURVES,
    FORMAT,
    MEASURES,
    PICTURES,
    RELIABILITY,
    SHIPPED,
    WEIGHTS,
    model_path,
    read_config,
    write_config,
)
from einthoven.models.model import Model
from einthoven.models.provenance import derived_provenance, initial_weights
from einthoven.predictions.calibration import read_calibration
from einthoven.predictions.sets import read_sets
from einthoven.signals.preparation import Preparation
from einthoven.tasks import Task

_PROBLEM_TYPES = {  # as the Hugging Face hub names them
    "labels": "multi_label_classification",
    "classes": "single_label_classification",
    "values": "regression",
}
_OF_HEADS = ("task", "problem_type", "id2label", "label2id", "head", "head_dropout", "descriptions")


def save_model(
    model: Model, path: str | Path, *, overwrite: bool = False, card: bool = True
) -> Path:
    """Write a model folder; config.json comes last and makes it complete.

    All fields of the backbone's config are written, because a later version may have another
    preset under the same name. The evaluation of a loaded model is kept if nothing that determines
    a prediction has changed. If the weights have changed, the provenance names the loaded model as
    the initial weights, and its metrics are left out.

    Parameters
    ----------
    model : Model
        Model to save.
    path : path
        The folder.
    overwrite : bool
        Replace the model that is in the folder.
    card : bool
        Write the model card; False if one with an evaluation follows.

    Raises
    ------
    ModelError
        If the folder holds a model already.
    FileError
        If it cannot be written.
    """
    folder = Path(path)
    if (folder / CONFIG_FILE).exists() and not overwrite:
        raise ModelError(
            f"{folder} holds a model already", remedy="name another folder, or pass overwrite=True"
        )
    check_output(folder, folder=True)
    if (folder / CONFIG_FILE).exists():
        for name in (CONFIG_FILE, CARD, EVALUATION_FILE, *PICTURES):
            (folder / name).unlink(missing_ok=True)
    metadata = model.fingerprints | {"format": FORMAT}
    write_tensors(folder / WEIGHTS, model.network.state_dict(), metadata)
    config = _config_of(model, file_sha256(folder / WEIGHTS))
    if card and not (folder / CARD).is_file():
        write_text(folder / CARD, _card(config))
    write_config(folder, config)
    if card and model.evaluation and _is_of(model.evaluation, folder):
        write_evaluation(folder, model.evaluation)
    return folder


def write_evaluation(path: str | Path, evaluation: Json, out: str | Path | None = None) -> Path:
    """Write `evaluation.json`, the model card and its figures into a model folder, or into `out`.

    Returns
    -------
    Path
        The card.

    Raises
    ------
    ModelError
        If the folder holds no model.
    EvaluationError
        If the evaluation belongs to another model.
    """
    from einthoven.report.card import model_card  # prediction needs neither templates
    from einthoven.report.data import REMEDY, mismatch
    from einthoven.report.figures import reliability_picture  # nor figures
    from einthoven.report.measures import draws_agreement, measures_picture
    from einthoven.report.panels import curves_picture

    folder = model_path(path)
    config = read_config(folder)
    if difference := mismatch(config, evaluation):
        raise EvaluationError(f"{folder}: the evaluation {difference}", remedy=REMEDY)
    folder = folder if out is None else Path(out)
    write_json(folder / EVALUATION_FILE, evaluation)
    pictures, calibration = {}, evaluation.get("calibration")
    if calibration:
        write_text(folder / RELIABILITY, reliability_picture(calibration))
        pictures["reliability"] = RELIABILITY
    score = evaluation.get("score") or {}
    if "confusion" in score or ("agreement" in score and draws_agreement(score)):
        write_text(folder / MEASURES, measures_picture(score))
        pictures["measures"] = MEASURES
    if curves := evaluation.get("curves"):
        decisions = (calibration or {}).get("decisions") or {}
        write_text(folder / CURVES, curves_picture(curves, decisions))
        pictures["curves"] = CURVES
    write_text(folder / CARD, model_card(config, evaluation, **pictures))
    return folder / CARD


def _is_of(evaluation: Json, folder: Path) -> bool:
    from einthoven.report.data import mismatch

    return not mismatch(read_config(folder), evaluation)


def _card(config: Json) -> str:
    """The model card of a model without an evaluation."""
    from einthoven.report.card import model_card  # prediction needs no templates

    backbone = entry(config["backbone"])
    return model_card({"summary": backbone.summary, "paper": backbone.paper} | config)


def _config_of(model: Model, sha256: str) -> Json:
    backbone, preparation = model.backbone, model.preparation
    config: Json = {
        "format": FORMAT,
        "einthoven_version": __version__,
        "model_type": "einthoven",
        "architectures": [type(model.network).__name__],
        "backbone": backbone.name,
        "backbone_options": backbone.config.options,
        "hidden_size": backbone.feature_dim,
        "preparation": preparation.to_dict(),
        "preparation_text": preparation.describe(),
        "aggregate": model.aggregate,
        "calibration": None if model.calibration is None else model.calibration.to_dict(),
        "sets": None if model.sets is None else model.sets.to_dict(),
        **model.licence.to_dict(),
        "weights_sha256": sha256,
    }
    descriptive = _descriptive(model.config, sha256)
    if isinstance(model.network, Classifier):
        config |= {
            "problem_type": _PROBLEM_TYPES[model.task.behaviour.form],
            "id2label": {str(place): label for place, label in enumerate(model.labels)},
            "label2id": {label: place for place, label in enumerate(model.labels)},
            "head": model.network.head_kind,
            "head_dropout": model.network.head_dropout.p,
        }
    else:
        config["architectures"] = [Backbone.__name__]
        descriptive = {key: value for key, value in descriptive.items() if key not in _OF_HEADS}
    return json.loads(json.dumps(descriptive | config))  # type: ignore[no-any-return]


def _descriptive(config: Json, sha256: str) -> Json:
    """Entries that describe these weights; those of the loaded weights are not among them."""
    loaded = config.get("weights_sha256", sha256)
    if loaded == sha256:
        return config
    dropped = ("metrics", "calibration_fit", "lead_accuracy", "name", "selection")
    provenance = {"initial_weights": initial_weights(config), **derived_provenance(config)}
    return {key: value for key, value in config.items() if key not in dropped} | {
        "provenance": provenance
    }


def load_model(path_or_name: str | Path = SHIPPED, *, revision: str | None = None) -> Model:
    """Open a model and verify its checksums. Warns if commercial use is forbidden.

    Parameters
    ----------
    path_or_name : path or str
        A model folder, the name of the included model, or `owner/model` on the Hugging Face hub.
    revision : str, optional
        Branch, tag or commit on the hub; a commit always gives the same weights.

    Returns
    -------
    Model
        The network is in eval mode, on the CPU, with the weights that were saved, bit for bit.

    Raises
    ------
    ModelError
        If the model is missing, incomplete, damaged or of another version.
    """
    folder = model_path(path_or_name, revision=revision)
    config = read_config(folder)
    network = load_network(folder)
    licence = Licence.from_dict(config)
    if licence.commercial_use is False:
        warnings.warn(f"{folder.name}: {licence}", LicenceWarning, stacklevel=2)
    aggregate = config["aggregate"]
    calibration, sets = config["calibration"], config.get("sets")
    metadata, evaluation = read_metadata(folder / WEIGHTS), folder / EVALUATION_FILE
    try:
        Task(**(config.get("task") or {}))
        return Model(
            network=network.eval().requires_grad_(False),
            preparation=Preparation.from_dict(config["preparation"]),
            aggregate=aggregate if isinstance(aggregate, str) else tuple(aggregate),
            calibration=None if calibration is None else read_calibration(calibration),
            sets=None if sets is None else read_sets(sets),
            config=config,
            fingerprints={key: value for key, value in metadata.items() if key != "format"},
            evaluation=read_json(evaluation) if evaluation.is_file() else {},
        )
    except (CalibrationError, CohortError, PreparationError) as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {error.problem}", remedy=COPY_AGAIN) from error


def load_network(path: str | Path) -> Classifier | Backbone:
    """The network of a model, in training mode, its checksums verified; issues no warning.

    Raises
    ------
    ModelError
        As `load_model`.
    """
    folder, config = model_path(path), read_config(path)
    tensors = _tensors(folder, config)
    network: Classifier | Backbone
    try:
        # Not on the meta device: its random numbers import half of PyTorch's compiler, a second.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            network = create_backbone(config["backbone"], **config["backbone_options"])
            if labels := config.get("id2label"):
                names = [labels[str(place)] for place in range(len(labels))]
                head = config.get("head", "linear")
                dropout = config["head_dropout"]
                network = Classifier(network, names, head=head, head_dropout=dropout)
        network.load_state_dict(tensors, assign=True)
    except (BackboneError, RuntimeError) as error:  # the checksums are right: another version
        raise ModelError(
            f"{folder}: the network {config['backbone']} cannot be built as it was saved: {error}",
            remedy=f"use einthoven {config.get('einthoven_version')}, which saved it",
        ) from error
    return network


def _tensors(folder: Path, config: Json) -> dict[str, Tensor]:
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelError(f"{file} is missing", remedy=COPY_AGAIN)
    sha256 = file_sha256(file)
    if sha256 != config["weights_sha256"]:
        raise ModelError(
            f"{file} is damaged: SHA-256 {sha256[:12]}..., {config['weights_sha256'][:12]}... "
            "expected",
            remedy=COPY_AGAIN,
        )
    # Clones, because safetensors aligns to 8 bytes and PyTorch to 64: the alignment determines
    # the order of summation on some processors, and with it the last bit of an answer.
    return {name: tensor.clone() for name, tensor in read_tensors(file)[0].items()}
