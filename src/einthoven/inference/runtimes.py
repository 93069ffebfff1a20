"""What runs a model's network: PyTorch, or onnxruntime for an exported model, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from einthoven.backbones.leads import subset_of
from einthoven.errors import EinthovenError
from einthoven.models.onnx_model import OnnxModel
from einthoven.records import Record
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import whole_record

if TYPE_CHECKING:
    import torch

    from einthoven.models.model import Model

AnyModel: TypeAlias = Union["Model", OnnxModel]
"""A model, or its exported form."""


class Runtime(Protocol):
    """Preparation and network of a model, for any set of its leads."""

    def route(self, leads: tuple[str, ...] | None) -> tuple[Any, Preparation]:
        """Network and preparation for records of some leads; of all without `leads`.

        Raises
        ------
        BackboneError
            If the model does not read one of them, or cannot go without the others.
        """

    def prepare(self, preparation: Preparation, record: Record) -> Any:
        """Prepare a record for the network."""

    def outputs(self, network: Any, signals: Sequence[Any]) -> NDArray[np.float64]:
        """Predictions of prepared records before calibration, (records, outputs)."""


def runtime_of(model: AnyModel, device: torch.device | str | None = None) -> Runtime:
    """The runtime of a model, on a device if one is named."""
    if isinstance(model, OnnxModel):
        if device not in (None, "auto", "cpu"):
            raise EinthovenError(
                f"an exported model runs on the CPU, not on {device}",
                remedy="leave out the device, or predict with the model folder",
            )
        return OnnxRuntime(model)
    from einthoven.backbones.inference import device_of
    from einthoven.inference.torch_runtime import TorchRuntime

    return TorchRuntime(model, None if device is None else device_of(device))


class OnnxRuntime:
    """onnxruntime, on the CPU."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

    def route(self, leads: tuple[str, ...] | None) -> tuple[tuple[str, ...], Preparation]:
        """Rows of a signal, instead of a network."""
        whole = self._model.preparation
        if leads is None:
            return whole.leads, whole
        available, rows = subset_of(leads, whole.leads)
        self._model.check_leads(rows)
        return rows, whole.with_leads(rows).deriving(available)

    def prepare(self, preparation: Preparation, record: Record) -> NDArray[np.float32]:
        """The record in front of the window, (leads, samples)."""
        signal = whole_record(preparation, record)
        return self._model.with_zeros(signal, preparation.leads)

    def outputs(self, network: Any, signals: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """As `OnnxModel.outputs`."""
        return self._model.outputs(signals)
