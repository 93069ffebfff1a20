"""Origin of weights: licence, pretraining data, and conversion into a model folder.

The terms of a public checkpoint come from the catalogue, those of a model folder from its config.
A bare weights file, whose tensors have einthoven's names, has unknown terms: anybody can write one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from einthoven.backbones.registry import entry
from einthoven.errors import WeightsError
from einthoven.files import Json, file_sha256
from einthoven.licences import UNKNOWN, Licence
from einthoven.models import Model, is_model, read_config, save_model
from einthoven.models.provenance import PTB_XL
from einthoven.weights.load import FAMILIES, load_backbone, load_classifier
from einthoven.weights.safe import read_state

__all__ = [
    "PublicData",
    "config_of_weights",
    "convert_checkpoint",
    "public_data",
    "weights_licence",
]

BARE = "bare weights file"


@dataclass(frozen=True)
class PublicData:
    """Pretraining data of public weights.

    Attributes
    ----------
    backbone : str
        A registered name.
    pretraining_data : str
        Description of the data.
    contains_ptbxl : bool or None
        Whether PTB-XL is among it; None if the published list could not be checked.
    """

    backbone: str
    pretraining_data: str
    contains_ptbxl: bool | None

    def warning(self, cohort: str) -> str:
        """Warning about results on a cohort; empty where there is nothing to warn about.

        PTB-XL is recognised by its own tables; an excerpt under another name is not.
        """
        if cohort != PTB_XL or self.contains_ptbxl is False:
            return ""
        if self.contains_ptbxl:
            return (
                f"the public weights of {self.backbone} were pretrained on data that include "
                f"PTB-XL ({self.pretraining_data}): PTB-XL is not an unseen cohort for them"
            )
        return (
            f"it is unknown whether the public weights of {self.backbone} were pretrained on "
            f"PTB-XL ({self.pretraining_data}): PTB-XL may not be an unseen cohort for them"
        )

    def record(self, cohort: str = "") -> Json:
        """As a JSON-serialisable dict, with the warning about a cohort, if there is one."""
        entries = {
            "backbone": self.backbone,
            "pretraining_data": self.pretraining_data,
            "contains_ptbxl": self.contains_ptbxl,
        }
        warning = self.warning(cohort)
        return entries | ({"cohort": cohort, "warning": warning} if warning else {})

    @classmethod
    def of_record(cls, record: Mapping[str, object] | None) -> PublicData | None:
        """The value that `record` wrote; None for none."""
        if not record:
            return None
        inside = record["contains_ptbxl"]
        return cls(
            str(record["backbone"]),
            str(record["pretraining_data"]),
            inside if isinstance(inside, bool) else None,
        )


def public_data(name: str, weights: str | PathLike[str]) -> PublicData | None:
    """Pretraining data of public weights, through all models that were trained from them.

    Parameters
    ----------
    name : str
        The backbone that the weights are loaded as.
    weights : path
        As for `load_backbone`.

    Returns
    -------
    PublicData or None
        None for weights that do not come from a public checkpoint.
    """
    file, catalogue = Path(weights), entry(name)
    if is_model(file):
        provenance = read_config(file).get("provenance") or {}
        return PublicData.of_record(provenance.get("public_weights"))
    if catalogue.licence is None:
        return None
    inside = catalogue.contains_ptbxl
    if family := FAMILIES.get(catalogue.family):
        names = _names(file)
        if not family.matches(names):
            return None
        if catalogue.classifiers_saw_ptbxl and family.is_classifier(names):
            inside = True
    return PublicData(name, catalogue.pretraining_data or "", inside)


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
        "public_weights": data.record() if data else None,
        "contains_ptbxl": data.contains_ptbxl if data else None,
    }
    if data is None:
        provenance["source"] = BARE
    licence = (entry(name).licence if data else None) or UNKNOWN
    return {"provenance": provenance, **licence.to_dict()}


def weights_licence(name: str, weights: str | PathLike[str]) -> Licence:
    """Licence of weights: that of the model folder, or of the public checkpoint."""
    return Licence.from_dict(config_of_weights(name, weights))


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
    file, catalogue = Path(weights), entry(name)
    if is_model(file):
        raise WeightsError(
            f"{file} is a model folder already", remedy="use it as it is: --weights takes it"
        )
    load = load_classifier if head else load_backbone
    network = load(name, weights=file, **overrides)
    config = config_of_weights(name, file)
    source: Json = {"file": file.name, "sha256": file_sha256(file)}
    provenance = config["provenance"]
    if public := provenance["public_weights"]:
        known = catalogue.weights_sha256
        public |= source | {
            "sha256_matches_catalogue": source["sha256"] == known if known else None,
            "source": catalogue.weights_from,
            "paper": catalogue.paper,
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
