"""Download of model folders from the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from einthoven.errors import ModelError

__all__ = ["download", "is_hub_name"]

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(name: str) -> bool:
    """Whether a text has the form `owner/model`."""
    return _NAME.fullmatch(name) is not None


def download(name: str, files: list[str], *, revision: str | None = None) -> Path:
    """Download a model from the hub, once, into its cache.

    Parameters
    ----------
    name : str
        `owner/model`.
    files : list of str
        Files of the model.
    revision : str, optional
        Branch, tag or commit; a commit always gives the same weights.

    Raises
    ------
    ModelError
        If `huggingface_hub` is not installed, or the download fails.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelError(
            f"{name}: no such folder, and huggingface_hub, which could download it, is missing",
            remedy="pip install 'einthoven[hub]', or download the folder and name it",
        ) from error
    try:
        return Path(snapshot_download(repo_id=name, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name}: no such folder, and the download from the hub failed: {error}",
            remedy="check the path or the name, and the network; private models need a login "
            "(`hf auth login`)",
        ) from error
