"""Checkpoints: one safetensors file, written atomically.

Weights, optimiser state and counters of the loop are in one file, so that they always belong to the
same step. Nothing is pickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from einthoven.errors import TrainingError
from einthoven.files import read_tensors, write_tensors

_MODEL, _AVERAGE, _OPTIMIZER = "model.", "average.", "optimizer."
_COUNTERS, _EXTRA = "counters", "extra_state"


def save_checkpoint(
    file: Path,
    model: nn.Module,
    optimiser: Optimizer,
    counters: dict[str, Any],
    average: nn.Module | None = None,
) -> None:
    """Write model, its average, optimiser state and counters, which must be JSON-serialisable."""
    weights, extra = _split(model)
    tensors = {_MODEL + name: value for name, value in weights.items()}
    if average is not None:
        tensors |= {_AVERAGE + name: value for name, value in _split(average)[0].items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{number}.{key}": value for key, value in state.items()}
    write_tensors(file, tensors, {_COUNTERS: json.dumps(counters)} | extra)


def load_checkpoint(
    file: Path, model: nn.Module, optimiser: Optimizer, average: nn.Module | None = None
) -> dict[str, Any]:
    """Restore model, average and optimiser from a checkpoint, and return its counters.

    Raises
    ------
    TrainingError
        If the file is damaged or belongs to another network.
    """
    tensors, metadata = read_tensors(file)
    modules = {_MODEL: model} if average is None else {_MODEL: model, _AVERAGE: average}
    try:
        for prefix, module in modules.items():
            weights = {
                k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)
            }
            module.load_state_dict(weights | _extra_state(metadata))
    except RuntimeError as error:
        raise TrainingError(
            f"{file} belongs to another network: {error}",
            remedy="use another run folder, or the recipe and backbone of this run",
        ) from error
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(_OPTIMIZER):
            number, name = key.removeprefix(_OPTIMIZER).split(".", 1)
            state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    counters: dict[str, Any] = json.loads(metadata[_COUNTERS])
    return counters


def save_weights(file: Path, model: nn.Module) -> None:
    """Write a model's state dict."""
    write_tensors(file, *_split(model))


def load_weights(file: Path, model: nn.Module) -> None:
    """Load a state dict written by `save_weights`."""
    tensors, metadata = read_tensors(file)
    model.load_state_dict(tensors | _extra_state(metadata))


def _split(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a state dict, and the extra state of modules as metadata."""
    state: dict[str, Any] = model.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    extra = {name: value for name, value in state.items() if name not in tensors}
    return tensors, {_EXTRA: json.dumps(extra)} if extra else {}


def _extra_state(metadata: dict[str, str]) -> dict[str, Any]:
    extra: dict[str, Any] = json.loads(metadata.get(_EXTRA, "{}"))
    return extra
