"""A bundle: a model on disk, with everything that is needed to trust and to use it.

::

    bundle.json           backbone, labels, Preparation, calibration, recipe, licence, checksums
    weights.safetensors   backbone and head; fingerprints of the records that they have seen
    evidence.json         how good it is: scores, calibration, subgroups, robustness
    README.md             the model card: both files in words, once there are numbers
    reliability.svg       the card's reliability diagram

A bundle predicts without its evidence and its card, and without a calibration, as those of earlier
versions do: its probabilities are then the network's own.

`digest` in bundle.json covers every entry that decides a prediction, the checksum of the weights
among them. Bundles of earlier versions have none and are read without it; a wrong one is refused.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.config import fields_of
from einthoven.errors import BundleError, CalibrationError
from einthoven.files import read_metadata, write_json, write_tensors
from einthoven.licences import LicenceWarning, is_non_commercial, terms_of
from einthoven.predictions import Calibration
from einthoven.shipped import ABOUT, SHIPPED, WEIGHTS, bundle_folder
from einthoven.signals.prepare import Preparation

EVIDENCE, CARD, RELIABILITY = "evidence.json", "README.md", "reliability.svg"
FORMAT, CALIBRATION, DIGEST = "einthoven-bundle-1", "calibration", "digest"
_NEEDED = ("backbone", "backbone_options", "labels", "preparation", "aggregate", "checksums")
_MEMORY = ("seen", "allowed_overlap")
_DECIDING = ("format", *_NEEDED, CALIBRATION)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A classifier that predicts.

    Attributes
    ----------
    classifier : Classifier
        In eval mode, on the CPU.
    labels : tuple of str
        Names of its outputs, in order.
    preparation : Preparation
        From a Record to its input.
    aggregate : str or tuple of str
        How the crops of a record are joined, of all labels or of each
        (`einthoven.backbones.inference.aggregate_crops`).
    about : dict
        Backbone, descriptions of labels, recipe, licence, provenance and metrics.
    calibration : Calibration or None
        What makes its probabilities ones to believe, and decides; None where none was fitted.
    memory : dict of str to str
        What its file of weights says of the records it has seen
        (`einthoven.stages.overlap.memory_metadata`); empty where nobody wrote it down.

    Raises
    ------
    BundleError
        When the calibration is of another number of labels.
    """

    classifier: Classifier
    labels: tuple[str, ...]
    preparation: Preparation
    aggregate: str | tuple[str, ...] = "probability"
    about: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    memory: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.calibration is not None and len(self.calibration) != len(self.labels):
            raise BundleError(
                f"a calibration of {len(self.calibration)} labels for a bundle of "
                f"{len(self.labels)}",
                remedy="fit the calibration on predictions of this bundle",
            )

    @property
    def descriptions(self) -> dict[str, str]:
        """Wording of every label that has one."""
        descriptions: dict[str, str] = self.about.get("descriptions", {})
        return descriptions

    @property
    def licence(self) -> str:
        """Its terms, those of the weights that it began with included; empty where none are known.

        `einthoven.licences.is_non_commercial` tells whether they forbid commercial use.
        """
        return terms_of(self.about)


def save_bundle(bundle: Bundle, path: str | Path, *, backbone: str) -> Path:
    """Write a bundle folder; `bundle.json` comes last and makes it complete.

    Every field of the network's config is written, not only those that differ from the preset: a
    later version may have another preset under the same name.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    said = bundle.memory | {"format": FORMAT}
    write_tensors(folder / WEIGHTS, bundle.classifier.state_dict(), said)
    known = {key: value for key, value in bundle.about.items() if key != CALIBRATION}
    about = known | {
        "format": FORMAT,
        "backbone": backbone,
        "backbone_options": fields_of(bundle.classifier.backbone.config),
        "labels": list(bundle.labels),
        "preparation": bundle.preparation.to_dict(),
        "aggregate": bundle.aggregate,
        "checksums": {WEIGHTS: _sha256(folder / WEIGHTS)},
    }
    if bundle.calibration is not None:
        about[CALIBRATION] = bundle.calibration.to_dict()
    write_json(folder / ABOUT, about | {DIGEST: digest_of(about)})
    return folder


def update_bundle(path: str | Path, **entries: Any) -> None:
    """Change entries (metrics, calibration, ...) of a bundle's description, and its digest.

    Raises
    ------
    BundleError
        When the folder is no complete bundle, or was changed by somebody else.
    """
    folder = Path(path)
    about = read_about(folder) | entries
    write_json(folder / ABOUT, about | {DIGEST: digest_of(about)})


def digest_of(about: Mapping[str, Any]) -> str:
    """SHA-256 of the entries of a description that decide a prediction.

    Format, backbone and its options, labels, preparation, how crops are joined, calibration, and
    the checksum of the weights; not what is said of them.
    """
    deciding = {key: about.get(key) for key in _DECIDING}
    text = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_about(path: str | Path) -> dict[str, Any]:
    """The description of a bundle, without its weights.

    Raises
    ------
    BundleError
        When the folder is no complete bundle, or an entry that decides a prediction was changed.
    """
    file = Path(path) / ABOUT
    try:
        about: dict[str, Any] = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{path} is no bundle: {ABOUT} is missing",
            remedy="name the folder `bundle` of a finished run",
        ) from error
    except ValueError as error:  # no JSON, or no text at all
        raise BundleError(f"{file} is damaged: {error}", remedy="make the bundle again") from error
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise BundleError(
            f"{file}: format {found!r}, this version reads {FORMAT!r}",
            remedy="make the bundle again with this version",
        )
    missing = [key for key in _NEEDED if key not in about]
    if missing:
        raise BundleError(
            f"{file} lacks {', '.join(missing)}", remedy="copy the whole bundle again"
        )
    if DIGEST in about and about[DIGEST] != (found := digest_of(about)):
        raise BundleError(
            f"{file} was changed after it was written: what decides its predictions (labels, "
            f"preparation, calibration, ...) has the digest {found[:12]}..., "
            f"{str(about[DIGEST])[:12]}... expected",
            remedy="copy the bundle again; what is to be another goes in by "
            "einthoven.bundle.update_bundle",
        )
    return about


def load_bundle(path: str | Path = SHIPPED) -> Bundle:
    """Open a bundle, its checksums verified. Warns where its terms forbid commercial use.

    Parameters
    ----------
    path : path or str
        A bundle's folder, or the name of one that comes with einthoven.

    Raises
    ------
    BundleError
        When a part is missing or damaged.
    """
    path = bundle_folder(path)
    about = read_about(path)
    data = _verified(Path(path) / WEIGHTS, about["checksums"].get(WEIGHTS, ""))
    try:
        classifier = create_classifier(
            about["backbone"], labels=about["labels"], seed=0, **about["backbone_options"]
        )
        classifier.load_state_dict(load_tensors(data))
    except (RuntimeError, SafetensorError) as error:
        raise BundleError(
            f"{path}: the weights do not fit {about['backbone']}: {error}",
            remedy="make the bundle again",
        ) from error
    if is_non_commercial(terms := terms_of(about)):
        warnings.warn(f"{Path(path).name}: {terms}", LicenceWarning, stacklevel=2)
    return Bundle(
        classifier=classifier.eval().requires_grad_(False).to(torch.device("cpu")),
        labels=tuple(about["labels"]),
        preparation=Preparation.from_dict(about["preparation"]),
        aggregate=_rules(about["aggregate"]),
        about=about,
        calibration=_calibration(path, about),
        memory=memory_in(Path(path) / WEIGHTS),
    )


def memory_in(weights: Path) -> dict[str, str]:
    """What a bundle's or a saved model's file of weights says of the records it has seen."""
    said = read_metadata(weights)
    return {key: said[key] for key in _MEMORY if key in said}


def _rules(said: str | list[str]) -> str | tuple[str, ...]:
    return said if isinstance(said, str) else tuple(said)


def _calibration(path: str | Path, about: dict[str, Any]) -> Calibration | None:
    if about.get(CALIBRATION) is None:
        return None
    try:
        return Calibration.from_dict(about[CALIBRATION])
    except CalibrationError as error:
        raise BundleError(
            f"{path}: the calibration is damaged: {error.problem}",
            remedy="copy the bundle again, or fit the calibration anew "
            "(einthoven.experiment.evaluation.fitted_calibration)",
        ) from error


def _verified(file: Path, expected: str) -> bytes:
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{file} is missing", remedy="copy the whole bundle folder") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise BundleError(
            f"{file} is damaged: SHA-256 {found[:12]}..., {expected[:12]}... expected",
            remedy="copy the bundle again",
        )
    return data


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
