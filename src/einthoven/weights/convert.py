"""Convert a public checkpoint into a model folder, with its origin and licence."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from einthoven.backbones.registry import entry
from einthoven.errors import WeightsError
from einthoven.files import Json, file_sha256
from einthoven.models import Model, is_model, read_config, save_model
from einthoven.weights.load import load_backbone, load_classifier
from einthoven.weights.public import config_of_weights

__all__ = ["convert_checkpoint"]


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
        A public checkpoint of its family.
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
        whether the SHA-256 is the one in the catalogue (None if the catalogue has none).

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
    file, catalogue = Path(weights), entry(name)
    if is_model(file):
        raise WeightsError(
            f"{file} is a model folder already", remedy="use it as it is: --weights takes it"
        )
    load = load_classifier if head else load_backbone
    network = load(name, weights=file, **overrides)
    digest, config = file_sha256(file), config_of_weights(name, file)
    known = digest == catalogue.weights_sha256 if catalogue.weights_sha256 else None
    public = {
        **(config["provenance"]["public_weights"] or {"backbone": name}),
        "file": file.name,
        "sha256": digest,
        "sha256_matches_catalogue": known,
        "source": catalogue.weights_from,
        "paper": catalogue.paper,
    }
    config["provenance"] |= {"public_weights": public}
    folder = save_model(Model(network, network.preparation, config=config), Path(out))
    return read_config(folder)
