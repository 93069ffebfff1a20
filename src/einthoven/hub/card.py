"""The card of a model's folder: the hub's metadata, and what is known in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from einthoven.backbones.registry import Entry, entry
from einthoven.signals.prepare import Preparation

__all__ = ["card_of"]

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.-]*")
_INSIDE = {True: "yes", False: "no", None: "unknown"}
_LABELS_SHOWN = 200


def card_of(
    config: Mapping[str, Any],
    said: Mapping[str, str],
    *,
    licence: str | None = None,
    tags: Sequence[str] = (),
) -> str:
    """Write the README of a saved model.

    Parameters
    ----------
    config : mapping
        The contents of `config.json`.
    said : mapping of str to str
        What the file that the weights came from says of itself.
    licence : str, optional
        An identifier of the hub, or words.
    tags : sequence of str
        More of them.

    Returns
    -------
    str
        Markdown below YAML.
    """
    about = entry(config["backbone"])
    stated = licence or said.get("public_weights_licence") or "unknown"
    parts = [
        _metadata(config, about, stated, tags),
        f"# {config['backbone']}" + (" classifier" if "id2label" in config else ""),
        _what(config, about),
        "## Input\n\n" + _input(Preparation.from_dict(config["preparation"])),
        *([_labels(config)] if "id2label" in config else []),
        "## Where the weights come from\n\n" + _origin(about, said),
        "## Licence\n\n" + _licence(stated, about),
        "## Use\n\n" + _use(config),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(config: Mapping[str, Any], about: Entry, stated: str, tags: Sequence[str]) -> str:
    """YAML; text goes in as JSON, which is YAML too."""
    known = ["ecg", "electrocardiogram", "einthoven", about.family.replace("_", "-")]
    known += ["multi-label-classification"] if "id2label" in config else ["feature-extraction"]
    identified = bool(_IDENTIFIER.fullmatch(stated))
    lines = [
        "---",
        f"license: {stated if identified else 'other'}",
        *([] if identified else ["license_name: stated-below"]),
        "library_name: einthoven",
        "tags:",
        *(f"- {json.dumps(tag)}" for tag in dict.fromkeys([*known, *tags])),
        "---",
    ]
    return "\n".join(lines)


def _what(config: Mapping[str, Any], about: Entry) -> str:
    size = f"{config['hidden_size']} features a record"
    if "id2label" in config:
        size = f"a linear head with {len(config['id2label'])} outputs on {size}"
    return (
        f"{about.summary}; {size}. Saved by einthoven {config['einthoven_version']}. The network "
        f"is described in: {about.paper}.\n\nNot a medical device."
    )


def _input(preparation: Preparation) -> str:
    steps = [f"{i}. {step}" for i, step in enumerate(preparation.steps, 1)]
    leads = f"Millivolts of the leads {', '.join(preparation.sources)}, in this order; then:"
    return "\n".join([leads, "", *steps])


def _labels(config: Mapping[str, Any]) -> str:
    names = list(config["id2label"].values())
    more = f"\n\nand {len(names) - _LABELS_SHOWN} more" if len(names) > _LABELS_SHOWN else ""
    return "## Labels\n\n" + ", ".join(f"`{name}`" for name in names[:_LABELS_SHOWN]) + more


def _origin(about: Entry, said: Mapping[str, str]) -> str:
    if "pretraining_data" in said:
        return f"Pretrained with einthoven on: {said['pretraining_data']}"
    if "converted_from" in said:
        return (
            f"Converted from the public {said['converted_from']} (SHA-256 {said['sha256']}), "
            f"pretrained on: {said['public_weights_data']}. PTB-XL inside: "
            f"{said.get('contains_ptbxl') or _INSIDE[about.contains_ptbxl]}."
        )
    if "contains_ptbxl" in said:
        return (
            "Trained with einthoven from public weights, which were pretrained on: "
            f"{said['public_weights_data']}. PTB-XL inside: {said['contains_ptbxl']}."
        )
    return (
        "Not recorded in this folder. The public weights of this backbone, if these were made from "
        f"them: {about.weights_from}. Pretraining data: {about.pretraining_data}. PTB-XL inside: "
        f"{_INSIDE[about.contains_ptbxl]}."
    )


def _licence(stated: str, about: Entry) -> str:
    return (
        f"Of these weights: {stated}. Terms of the public weights, which hold for what is made "
        f"from them: {about.weights_licence}."
    )


def _use(config: Mapping[str, Any]) -> str:
    use = {
        "Backbone": "model.features(crops)  # (crops, features)",
        "Classifier": "model(crops).sigmoid()  # (crops, labels)",
        "Bundle": "",
    }[config["architectures"][0]]
    lines = ["import einthoven", "", 'model = einthoven.from_pretrained("PATH-OR-NAME")']
    lines += ['record = einthoven.read_record("my_ecg.hea")']
    if use:
        lines += ["crops = prepare_record(model.preparation, record)", use]
        lines.insert(1, "from einthoven.signals.prepare import prepare_record")
    else:
        lines += ["predict_record(model, record).probabilities"]
        lines.insert(1, "from einthoven.predict import predict_record")
    return "```python\n" + "\n".join(lines) + "\n```"
