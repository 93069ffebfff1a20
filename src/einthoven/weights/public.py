"""What the public weights in a file were pretrained on, and what that means for tests on PTB-XL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from einthoven.backbones.registry import entry
from einthoven.files import read_metadata
from einthoven.weights import hubert_ecg
from einthoven.weights.folder import described, run_of, weights_file
from einthoven.weights.safe import read_checkpoint
from einthoven.weights.state import CONTAINERS, state_of

__all__ = ["INSIDE", "PTB_XL", "PublicData", "public_data"]

PTB_XL = "ptb-xl"  # the name that its own tables give a cohort
# Of a converted file's metadata, which are texts.
INSIDE = {True: "yes", False: "no", None: "unknown"}
_DATA, _INSIDE_KEY, _RECORD = "public_weights_data", "contains_ptbxl", "public_weights"

# How a family's fine-tuned classifiers are told from its pretrained networks, by names of tensors.
_IS_CLASSIFIER: dict[str, Callable[[Collection[str]], bool]] = {
    "hubert_ecg": hubert_ecg.is_classifier,
}


@dataclass(frozen=True)
class PublicData:
    """What public weights have seen.

    Attributes
    ----------
    backbone : str
        A registered name.
    pretraining_data : str
        What they were trained on before they were published.
    contains_ptbxl : bool or None
        Whether PTB-XL was among it; None where nobody could check.
    """

    backbone: str
    pretraining_data: str
    contains_ptbxl: bool | None

    def warning(self, cohort: str) -> str:
        """What to say of results on a cohort; empty where there is nothing to say.

        A cohort is known as PTB-XL by its own tables: an excerpt under another name is not.
        """
        if cohort != PTB_XL or self.contains_ptbxl is False:
            return ""
        if self.contains_ptbxl:
            return (
                f"the public weights of {self.backbone} were pretrained on data that include "
                f"PTB-XL ({self.pretraining_data}): results on PTB-XL are not those of an unseen "
                "cohort"
            )
        return (
            f"whether the public weights of {self.backbone} were pretrained on PTB-XL is unknown "
            f"({self.pretraining_data}): results on PTB-XL may not be those of an unseen cohort"
        )

    def metadata(self) -> dict[str, str]:
        """What a file of weights keeps."""
        return {_DATA: self.pretraining_data, _INSIDE_KEY: INSIDE[self.contains_ptbxl]}

    def record(self, cohort: str) -> dict[str, Any]:
        """What runs, bundles and evidence keep: with the `warning` about a `cohort`, if any."""
        said = {"pretraining_data": self.pretraining_data, _INSIDE_KEY: self.contains_ptbxl}
        warning = self.warning(cohort)
        return said | ({"cohort": cohort, "warning": warning} if warning else {})

    @classmethod
    def of_record(cls, backbone: str, record: Mapping[str, Any] | None) -> PublicData | None:
        """What `record` kept."""
        if not record:
            return None
        # Runs of earlier versions recorded only what they warned of: that it was inside.
        return cls(backbone, record["pretraining_data"], record.get(_INSIDE_KEY, True))


def public_data(name: str, weights: str | PathLike[str]) -> PublicData | None:
    """What the public weights in a file have seen: as the file says, or the catalogue.

    Parameters
    ----------
    name : str
        The backbone that the file is read as.
    weights : path
        As for `load_backbone`.

    Returns
    -------
    PublicData or None
        None for weights that were not public: those that were pretrained here and say on what, and
        those of backbones that nobody publishes. What a run or a bundle began with counts for what
        it became.
    """
    file = weights_file(weights)
    said, about = read_metadata(file), entry(name)
    if "pretraining_data" in said or about.licence is None:
        return None
    if _INSIDE_KEY in said:
        inside = next(key for key, text in INSIDE.items() if text == said[_INSIDE_KEY])
        return PublicData(name, said[_DATA], inside)
    for record in (described(file), run_of(file).get("request", {})):
        if _RECORD in record:
            return PublicData.of_record(name, record[_RECORD])
    inside = about.contains_ptbxl
    if about.classifiers_saw_ptbxl and _IS_CLASSIFIER[about.family](_names(file)):
        inside = True
    return PublicData(name, about.pretraining_data or "", inside)


def _names(file: Path) -> Collection[str]:
    try:
        with safe_open(str(file), framework="pt") as handle:
            return set(handle.keys())
    except (SafetensorError, OSError):
        return set(state_of(read_checkpoint(file, parts=CONTAINERS), file=file))
