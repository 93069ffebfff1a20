"""Origin of weights: licence, pretraining data, and conversion into a model folder.

The terms of a public checkpoint come from the catalogue, those of a model folder from its config.
A bare weights file, whose tensors have einthoven's names, has unknown terms: anybody can write one.
"""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from einthoven.backbones.registry import entry
from einthoven.errors import WeightsError
from einthoven.files import Json, file_sha256
from einthoven.licences import UNKNOWN
from einthoven.models import Model, is_model, read_config, save_model
from einthoven.models.provenance import PTB_XL
from einthoven.weights.load import load_backbone, load_classifier, reader_of
from einthoven.weights.safe import read_state

_DATA = ("backbone", "pretraining_data", "contains_ptbxl")


def public_data(name: str, weights: str | PathLike[str]) -> Json | None:
    """Pretraining data of public weights, through all models that were trained from them.

    Parameters
    ----------
    name : str
        The backbone that the weights are loaded as.
    weights : path
        As for `load_backbone`.

    Returns
    -------
    dict or None
        `backbone`, `pretraining_data` and `contains_ptbxl`, which is None if the published list of
        data could not be checked. None for weights that do not come from a public checkpoint.
    """
    file, catalogue_entry = Path(weights), entry(name)
    if is_model(file):
        data = (read_config(file).get("provenance") or {}).get("public_weights")
        return {key: data[key] for key in _DATA} if data else None
    reader = reader_of(name)
    if reader is None or catalogue_entry.licence is None:
        return None
    names = _names(file)
    if not reader.matches(names):
        return None
    contains_ptbxl = catalogue_entry.contains_ptbxl
    if catalogue_entry.classifiers_saw_ptbxl and reader.is_classifier(names):
        contains_ptbxl = True
    values = (name, catalogue_entry.pretraining_data or "", contains_ptbxl)
    return dict(zip(_DATA, values, strict=True))


def data_on_cohort(data: Json, cohort: str) -> Json:
    """The entries of `public_data`; also `cohort` if the data include that cohort, or may.

    PTB-XL is recognised by its own tables; an excerpt under another name is not.
    """
    data = {key: data[key] for key in _DATA}
    is_unseen = cohort != PTB_XL or data["contains_ptbxl"] is False
    return data if is_unseen else data | {"cohort": cohort}


def config_of_weights(name: str, weights: str | PathLike[str]) -> Json:
    """Provenance and licence of weights: the config of a model folder, or the same entries for a
    weights file.

    Parameters
    ----------
    name : str
        The backbone that the weights are loaded as.
    weights : path
        As for `load_backbone`.
    """
    if is_model(Path(weights)):
        return read_config(Path(weights))
    data = public_data(name, weights)
    provenance: Json = {
        "pretraining": [],
        "public_weights": data,
        "contains_ptbxl": data["contains_ptbxl"] if data else None,
    }
    if data is None:
        provenance["source"] = "bare weights file"
    licence = (entry(name).licence if data else None) or UNKNOWN
    return {"provenance": provenance, **licence.to_dict()}


def convert_checkpoint(
    name: str,
    *,
    weights: str | PathLike[str],
    out: str | PathLike[str],
    head: bool = False,
    **overrides: Any,
) -> Json:
    """Load a public checkpoint strictly and save it as a model folder.

    Parameters
    ----------
    name : str
        A registered backbone.
    weights : path
        A public checkpoint of its family, or a bare weights file.
    out : path
        The model folder to write.
    head : bool
        Keep the linear head as well.
    **overrides
        Fields of the backbone's config.

    Returns
    -------
    dict
        The config of the model. `provenance.public_weights` names the file, its SHA-256, and
        whether the SHA-256 is the one in the catalogue (None if the catalogue has none);
        `provenance.initial_weights` names a bare weights file.

    Raises
    ------
    WeightsError
        As `load_backbone`, if `weights` is a model folder already, and if the file has no head
        that could be kept.
    ModelError
        If `out` holds a model.
    BackboneError
        For an unknown name or override.
    """
    file, catalogue_entry = Path(weights), entry(name)
    if is_model(file):
        raise WeightsError(
            f"{file} is a model folder already", remedy="use it as it is: `weights=...` takes it"
        )
    load = load_classifier if head else load_backbone
    network = load(name, weights=file, **overrides)
    config = config_of_weights(name, file)
    source: Json = {"file": file.name, "sha256": file_sha256(file)}
    provenance = config["provenance"]
    if public := provenance["public_weights"]:
        expected = catalogue_entry.weights_sha256
        public |= source | {
            "sha256_matches_catalogue": source["sha256"] == expected if expected else None,
            "source": catalogue_entry.weights_from,
            "paper": catalogue_entry.paper,
        }
    else:
        provenance["initial_weights"] = source | {"source": provenance.pop("source")}
    folder = save_model(Model(network, network.preparation, config=config), Path(out))
    return read_config(folder)


def _names(file: Path) -> Collection[str]:
    try:
        with safe_open(str(file), framework="pt") as handle:
            return set(handle.keys())
    except (SafetensorError, OSError):
        return set(read_state(file))
