"""Terms and pretraining data of weights: from the model folder, or from the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open

from einthoven.backbones.registry import entry
from einthoven.files import Json
from einthoven.licences import UNKNOWN, Licence
from einthoven.models import is_model, read_config
from einthoven.models.provenance import PTB_XL
from einthoven.weights import hubert_ecg
from einthoven.weights.safe import read_state

__all__ = ["PublicData", "config_of_weights", "public_data", "weights_licence"]

# How a family's fine-tuned classifiers differ from its pretrained networks, by tensor names.
_IS_CLASSIFIER: dict[str, Callable[[Collection[str]], bool]] = {
    "hubert_ecg": hubert_ecg.is_classifier,
}


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
    if is_model(Path(weights)):
        provenance = read_config(Path(weights)).get("provenance") or {}
        return PublicData.of_record(provenance.get("public_weights"))
    catalogue = entry(name)
    if catalogue.licence is None:
        return None
    inside = catalogue.contains_ptbxl
    if catalogue.classifiers_saw_ptbxl and _IS_CLASSIFIER[catalogue.family](_names(Path(weights))):
        inside = True
    return PublicData(name, catalogue.pretraining_data or "", inside)


def config_of_weights(name: str, weights: str | PathLike[str]) -> Json:
    """Provenance and licence of weights: the config of a model folder, or the same entries for a
    public checkpoint.

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
    return {"provenance": provenance, **(entry(name).licence or UNKNOWN).to_dict()}


def weights_licence(name: str, weights: str | PathLike[str]) -> Licence:
    """Licence of weights: that of the model folder, or of the public checkpoint."""
    return Licence.from_dict(config_of_weights(name, weights))


def _names(file: Path) -> Collection[str]:
    try:
        with safe_open(str(file), framework="pt") as handle:
            return set(handle.keys())
    except (SafetensorError, OSError):
        return set(read_state(file))
