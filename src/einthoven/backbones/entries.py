"""What the catalogue says about a backbone."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Entry"]


@dataclass(frozen=True)
class Entry:
    """What the catalogue says about a backbone.

    Attributes
    ----------
    factory : str
        `module:function` that builds it.
    summary : str
        One line on what it is.
    origin : str
        The same in a phrase of at most 24 characters: whose it is.
    parameters : int
        Number of parameters without a head.
    family : str
        Whose checkpoints it reads (`einthoven.weights`).
    paper : str
        Where it was described.
    pretraining_data : str
        What the public weights were pretrained on.
    weights_licence : str
        Licence of the public weights.
    weights_from : str
        Where to get them; they are never downloaded unasked nor shipped.
    contains_ptbxl : bool or None
        Whether PTB-XL was among the pretraining data of the public weights; None where their
        authors' list could not be checked.
    classifiers_saw_ptbxl : bool
        Whether the family's public classifiers were trained on PTB-XL, whatever was among the
        pretraining data.
    weights_sha256 : str
        SHA-256 of the file that `weights_from` names first, as others recorded it; empty where
        nobody has.
    weights_name : str
        What to search for: a repository's name where there is one, otherwise a file's; empty where
        neither is known.
    weights_size : str
        Size of that file, in words; empty where nobody recorded it.
    recipe : str
        The recipe (`einthoven.stages.recipe`) of a network that is made for the task and trained
        from random weights; empty for one that is pretrained.
    """

    factory: str
    summary: str
    origin: str
    parameters: int
    family: str
    paper: str
    pretraining_data: str
    weights_licence: str
    weights_from: str
    contains_ptbxl: bool | None = False
    classifiers_saw_ptbxl: bool = False
    weights_sha256: str = ""
    weights_name: str = ""
    weights_size: str = ""
    recipe: str = ""
