"""Model card of a model without an evaluation: what the config says, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from einthoven.backbones.registry import entry
from einthoven.licences import Licence
from einthoven.models.provenance import training_history
from einthoven.signals.prepare import Preparation

__all__ = ["minimal_card"]

_ANSWER = {True: "yes", False: "no", None: "unknown"}
_LABELS_SHOWN = 200


def minimal_card(config: Mapping[str, Any]) -> str:
    """Write the card of a model from its config, with the metadata that the hub reads.

    Returns
    -------
    str
        Markdown below YAML.
    """
    labels = list((config.get("id2label") or {}).values())
    sections = {
        "Input": _input(Preparation.from_dict(config["preparation"])),
        "Labels": _labels(labels),
        "Provenance": "\n".join(f"- {line}" for line in _provenance(config)),
        "Licence": _licence(Licence.from_dict(config)),
        "Usage": _usage(bool(labels)),
    }
    parts = [_metadata(config, bool(labels)), f"# {config.get('name') or config['backbone']}"]
    parts.append(_summary(config, labels))
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def _metadata(config: Mapping[str, Any], classifier: bool) -> str:
    licence = Licence.from_dict(config)
    known = licence.id not in ("other", "unknown")
    task = "multi-label-classification" if classifier else "feature-extraction"
    tags = ["ecg", "electrocardiogram", "einthoven", config["backbone"].replace("_", "-"), task]
    named = [] if known else ["license_name: stated-below"]
    lines = [f"license: {licence.id.lower() if known else 'other'}", *named]
    lines += ["library_name: einthoven", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(["---", *lines, "---"])


def _summary(config: Mapping[str, Any], labels: list[str]) -> str:
    size = f"{config['hidden_size']} features per record"
    if labels:
        size = f"a linear head with {len(labels)} outputs on {size}"
    backbone = entry(config["backbone"])
    return (
        f"{backbone.summary}; {size}. Saved by einthoven {config['einthoven_version']}. "
        f"Network: {backbone.paper}.\n\nNot a medical device. Not evaluated."
    )


def _input(preparation: Preparation) -> str:
    steps = [f"{place}. {step}" for place, step in enumerate(preparation.steps, 1)]
    leads = f"Leads {', '.join(preparation.sources)}, in millivolts and in this order; then:"
    return "\n".join([leads, "", *steps])


def _labels(labels: list[str]) -> str:
    more = f"\n\nand {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else ""
    return ", ".join(f"`{label}`" for label in labels[:_LABELS_SHOWN]) + more


def _provenance(config: Mapping[str, Any]) -> Iterator[str]:
    provenance = config.get("provenance")
    if not provenance:
        yield "Not recorded."
        return
    if public := provenance.get("public_weights"):
        file = f"`{public['file']}` (SHA-256 `{public['sha256']}`)" if public.get("file") else ""
        yield f"Public weights of {public['backbone']} {file}".strip()
        yield f"Pretraining data of the public weights: {public['pretraining_data']}"
    for stage in training_history(config):
        labels = f"labels of {stage['task']}" if stage.get("task") else "without labels"
        records = f"{stage['records']} records" if stage.get("records") else "records not counted"
        yield f"Trained on {stage['cohort']} {stage['version']}: {records}, {labels}"
    yield f"PTB-XL among the training data: {_ANSWER[provenance.get('contains_ptbxl')]}"


def _licence(licence: Licence) -> str:
    use = {True: "allowed", False: "**not allowed**", None: "unknown; ask the owners"}
    return f"{licence}\n\nCommercial use: {use[licence.commercial_use]}."


def _usage(classifier: bool) -> str:
    module, use = "signals.prepare", "prepare_record"
    call = "model.backbone.features(prepare_record(model.preparation, record))"
    if classifier:
        module, use, call = (
            "predict",
            "predict_record",
            "predict_record(model, record).probabilities",
        )
    return (
        f"```python\nimport einthoven\nfrom einthoven.{module} import {use}\n\n"
        'model = einthoven.load_model("PATH-OR-NAME")\n'
        f'record = einthoven.read_record("my_ecg.hea")\n{call}\n```'
    )
