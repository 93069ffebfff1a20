"""Places and descriptions of models; reads no weights and imports no torch.

`digest` in config.json covers every entry that determines a prediction, the checksum of the weights
among them; a folder with another digest is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from einthoven.errors import EvaluationError, FileError, ModelError, first_fault
from einthoven.files import (
    CONFIG_FILE,
    EVALUATION_FILE,
    METRICS_FILE,
    Json,
    read_json,
    write_json,
)

WEIGHTS, CARD = "model.safetensors", "README.md"
RELIABILITY, CURVES, MEASURES = PICTURES = ("reliability.svg", "curves.svg", "measures.svg")
FORMAT = "einthoven-model-1"
SHIPPED = "einthoven-small"

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHIPPED_FOLDER = Path(__file__).resolve().parent / "shipped"
_DETERMINING = (
    "format",
    "backbone",
    "backbone_options",
    "id2label",
    "preparation",
    "aggregate",
    "calibration",
    "sets",
    "weights_sha256",
    "head",
    "task",
)
COPY_AGAIN = "copy the whole model folder again"


def _numbered(labels: dict[str, str]) -> dict[str, str]:
    if set(labels) != {str(place) for place in range(len(labels))}:
        raise ValueError("the keys should be the numbers of the outputs, from 0")
    return labels


class _Entries(BaseModel):
    """Entries of config.json that are read; all others are descriptive."""

    model_config = ConfigDict(strict=True)
    backbone: str
    backbone_options: dict[str, Any]
    preparation: Annotated[dict[Literal["leads", "steps"], list[Any]], Field(min_length=2)]
    aggregate: str | list[str]
    calibration: dict[str, Any] | None
    sets: dict[str, Any] | None = None
    weights_sha256: str
    provenance: dict[str, Any] | None = None
    descriptions: dict[str, str] = {}
    lead_accuracy: dict[str, Any] | None = None
    task: dict[str, Any] | None = None


class _ClassifierEntries(_Entries):
    id2label: Annotated[dict[str, str], AfterValidator(_numbered)]
    head: Literal["linear", "query-attention"] = "linear"
    head_dropout: Annotated[float, Field(ge=0, lt=1)]


def model_path(name_or_path: str | Path, *, revision: str | None = None) -> Path:
    """Folder of a model.

    Parameters
    ----------
    name_or_path : str or path
        A model folder or its `model.safetensors`, the name of the included model, or `owner/model`
        on the Hugging Face hub, which is downloaded. Local folders come first.
    revision : str, optional
        Branch, tag or commit on the hub.

    Raises
    ------
    ModelError
        If there is no such model, or its download fails.
    """
    path = Path(name_or_path)
    if path.name == WEIGHTS and path.is_file():
        return path.parent
    if path.exists():
        return path
    shipped = _SHIPPED_FOLDER / path.name
    if len(path.parts) == 1 and (shipped / CONFIG_FILE).is_file():
        return shipped
    if _HUB_NAME.fullmatch(str(name_or_path)):
        return _download(str(name_or_path), revision)
    raise ModelError(
        f"{name_or_path}: no such model",
        remedy=f"name the folder `model` of a run, {SHIPPED}, or `owner/model` on the hub",
    )


def _download(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelError(
            f"{name}: no such folder, and huggingface_hub, which could download it, is missing",
            remedy="pip install 'einthoven[hub]', or download the folder and name it",
        ) from error
    files = [CONFIG_FILE, WEIGHTS, CARD, EVALUATION_FILE, *PICTURES]
    try:
        return Path(snapshot_download(repo_id=name, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name}: no such folder, and the download from the hub failed: {error}",
            remedy="check the path or the name, and the network; private models need a login "
            "(`hf auth login`)",
        ) from error


def weights_file(path: str | Path) -> Path:
    """Weights file of a model; any other path is returned as it is."""
    return model_path(path) / WEIGHTS if is_model(path) else Path(path)


def is_model(path: str | Path) -> bool:
    """Whether a path is a model folder or its weights file, or the name of the included model."""
    path = Path(path)
    if len(path.parts) == 1 and not path.exists():
        path = _SHIPPED_FOLDER / path
    config = path.with_name(CONFIG_FILE) if path.name == WEIGHTS else path / CONFIG_FILE
    return config.is_file()


def refuse_models(sources: Iterable[str | Path], command: str = "predict") -> None:
    """Refuse a model or a run where ECGs are expected.

    Raises
    ------
    EvaluationError
        With the command that uses the model.
    """
    for source in map(Path, sources):
        is_run = (source / METRICS_FILE).is_file() and is_model(source / "model")
        if is_run or is_model(source):
            raise EvaluationError(
                f"{source} is a {'run' if is_run else 'model'}, not an ECG",
                remedy=f"einthoven {command} --model {source / 'model' if is_run else source} FILE",
            )


def read_config(path: str | Path) -> Json:
    """Contents of a model's config.json, its digest verified; the weights are not read.

    Raises
    ------
    ModelError
        If the folder is incomplete or damaged, an entry is missing or has another type, or one that
        determines a prediction was changed.
    """
    file = model_path(path) / CONFIG_FILE
    try:
        config: Json = read_json(file)
    except (FileError, OSError) as error:
        problem = "damaged" if file.is_file() else "missing"
        raise ModelError(
            f"{file.parent} is not a model folder: {CONFIG_FILE} is {problem}",
            remedy="name the folder `model` of a finished run",
        ) from error
    return check_config(config, file)


def check_config(config: Any, file: Path) -> Json:
    """Verify the entries of a config.json, read from a file, and its digest.

    Raises
    ------
    ModelError
        As `read_config`.
    """
    version = config.get("format") if isinstance(config, dict) else None
    if version != FORMAT:
        raise ModelError(
            f"{file}: format {version!r}, expected {FORMAT!r}",
            remedy="name a folder that einthoven.save_model wrote; load_backbone reads public "
            "checkpoints",
        )
    digest = config_digest(config)
    if config.get("digest") != digest:
        raise ModelError(
            f"{file} was edited: the entries that determine a prediction (labels, preparation, "
            f"calibration, ...) have the digest {digest[:12]}..., another one is recorded",
            remedy="copy the model again; change entries with einthoven.models.update_config",
        )
    entries = _ClassifierEntries if config.get("id2label") else _Entries
    try:
        entries.model_validate(config)
    except ValidationError as error:
        problem, detail = first_fault(error, list(entries.model_fields))
        raise ModelError(f"{file}: {problem} ({detail})", remedy=COPY_AGAIN) from error
    checked: Json = config
    return checked


def update_config(path: str | Path, **entries: Any) -> None:
    """Replace entries of a model's config.json (metrics, calibration, ...), and its digest.

    Raises
    ------
    ModelError
        If the folder is not a complete model.
    """
    write_config(model_path(path), read_config(path) | entries)


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of the entries that determine a prediction; descriptive entries are left out."""
    determining = {key: config.get(key) for key in _DETERMINING}
    defaults = {"task": None, "sets": None, "head": "linear"}
    for key, default in defaults.items():  # an entry left out means the same
        if determining[key] in (None, default):
            del determining[key]
    text = json.dumps(determining, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_config(folder: Path, config: Json) -> None:
    """Write config.json with its digest."""
    write_json(folder / CONFIG_FILE, config | {"digest": config_digest(config)})
