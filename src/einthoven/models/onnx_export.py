"""Export of a model to one ONNX file, which `einthoven.models.onnx_model` describes and reads.

What depends on the weights alone, such as the kernels of state-space layers, is computed once and
stored. ONNX has no complex numbers and onnxruntime no fast Fourier transform: layers that use one
have a form of real matrix products for export (`einthoven.backbones.layers.long_convolution`).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import BackboneError, EinthovenError, ModelError
from einthoven.files import Json, replacing
from einthoven.models.config import SHIPPED, read_config
from einthoven.models.folder import load_model
from einthoven.models.model import Model
from einthoven.models.onnx_model import (
    CONFIG,
    DIGEST,
    INPUT,
    PROBABILITIES,
    SIZE,
    SUFFIX,
    UNCALIBRATED,
    VALUES,
    ZEROS,
)
from einthoven.predictions.calibration import Calibration
from einthoven.signals.prepare import finish_crops, whole_record

TOLERANCE = 1e-5
"""Largest accepted difference of a probability between the graph and PyTorch."""

_TRIAL_RECORDS = 3
_MOST = 1 << 24  # records, samples of a record, and values of a folded constant
_REDUCED: dict[str, Callable[[Tensor], Tensor]] = {
    "probability": lambda crops: crops.mean(1),
    "logit": lambda crops: crops.mean(1),
    "max": lambda crops: crops.amax(1),
}


def export_onnx(path_or_name: str | Path = SHIPPED, *, out: str | Path, int8: bool = False) -> Path:
    """Write a model as an ONNX file, once its predictions are those of PyTorch.

    Parameters
    ----------
    path_or_name : path or str
        The model, as for `load_model`.
    out : path
        The file, with the suffix `.onnx`.
    int8 : bool
        Weights of matrix products in eight bits, activations quantised as they come. Predictions
        then differ, and are not compared.

    Raises
    ------
    ModelError
        If the suffix is another one, the packages of the extra `onnx` are missing, the model cannot
        be exported, or the graph's predictions differ by more than `TOLERANCE`. Nothing is written
        then.
    """
    file = Path(out)
    if file.suffix != SUFFIX:
        raise ModelError(f"{file} does not end in {SUFFIX}", remedy=f"name a file in {SUFFIX}")
    _check_packages()
    model, config = load_model(path_or_name), read_config(path_or_name)
    graph = _Graph(model).eval()
    records = _trial_records(model)
    # Of other numbers of records and samples too: a network may fix either without notice.
    trials = [records, records[:1].repeat(1, 1, 2)]
    with torch.no_grad():  # filters are designed as well, which a trace cannot do
        expected = [graph(trial)[0].numpy() for trial in trials]
    content = _traced(graph, records)
    if int8:
        content = _quantised(content)
    else:
        _check_parity(content, trials, expected, is_probability=graph.names[0] == PROBABILITIES)
    metadata = {
        **_plain_metadata(model, config),
        CONFIG: json.dumps(config, separators=(",", ":")),
        ZEROS: "zeros" if _takes_zeros(model, records) else "refused",
        SIZE: str(len(content)),
        DIGEST: hashlib.sha256(content).hexdigest(),
        "weights": "int8" if int8 else "float32",
    }
    with replacing(file) as temporary:
        temporary.write_bytes(content + _serialised(metadata))
    return file


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"{error.name}, which exports to ONNX, is not installed",
            remedy="pip install 'einthoven[onnx]'",
        ) from error


def _plain_metadata(model: Model, config: Json) -> dict[str, str]:
    """What a program without einthoven has to know about input and output, as text or JSON."""
    preparation, calibration = model.preparation, model.calibration
    thresholds = calibration.thresholds if isinstance(calibration, Calibration) else None
    return {
        "name": model.name,
        "notice": "for research; not a medical device",
        "labels": json.dumps(model.labels),
        "descriptions": json.dumps(model.descriptions),
        "thresholds": json.dumps(thresholds),
        "leads": json.dumps(preparation.leads),
        "unit": "mV",
        "rate": f"{preparation.cropped.rate:g}",
        "window": str(preparation.crop.samples),
        "evaluation_crops": str(preparation.evaluation_crops),
        "steps_before": json.dumps([str(step) for step in preparation.before_window]),
        "steps_within": json.dumps([str(step) for step in preparation.after_window]),
        "licence": str(model.licence),
        "digest": str(config["digest"]),
    }


class _Graph(nn.Module):
    """From records in front of the window, (records, leads, samples), to predictions."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.preparation, self.task = model.preparation, model.task
        self.aggregate, self.calibration = model.aggregate, model.calibration
        crop = torch.zeros(2, len(self.preparation.leads), self.preparation.window)
        self.network = _with_constants(model.classifier, crop)

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        is_values = self.task.behaviour.form == "values"
        return [VALUES] if is_values else [PROBABILITIES, UNCALIBRATED]

    def forward(self, ecg: Tensor) -> tuple[Tensor, ...]:
        """Predictions of records; the crops are those of `evaluation_starts`."""
        crops = self._crops(ecg)
        logits = self.network(finish_crops(self.preparation, crops.flatten(0, 1))).double()
        uncalibrated = self._aggregated(logits, crops.shape[0], crops.shape[1])
        if self.names == [VALUES]:
            return (uncalibrated,)
        return self._calibrated(uncalibrated).float(), uncalibrated

    def _crops(self, ecg: Tensor) -> Tensor:
        """Cut (records, crops, leads, window)."""
        window, most = self.preparation.crop.samples, self.preparation.evaluation_crops
        room = ecg.shape[2] - window
        if most == 1:
            starts = torch.zeros(1, dtype=torch.long) + room // 2
        else:
            stride = torch.sym_max(1, room // (most - 1))  # type: ignore[no-untyped-call]
            count = torch.sym_min(most, room + 1)  # type: ignore[no-untyped-call]
            starts = torch.arange(count) * stride
        places = starts[:, None] + torch.arange(window)
        return ecg[:, :, places].transpose(1, 2)

    def _aggregated(self, logits: Tensor, records: int, crops: int) -> Tensor:
        """Predictions of records, (records, outputs), from the logits of their crops."""
        rules = self.aggregate
        if isinstance(rules, str):
            return self._by_rule(rules, logits, (records, crops))
        columns = {rule: self._by_rule(rule, logits, (records, crops)) for rule in set(rules)}
        return torch.stack([columns[rule][:, place] for place, rule in enumerate(rules)], dim=1)

    def _by_rule(self, rule: str, logits: Tensor, shape: tuple[int, int]) -> Tensor:
        def activate(outputs: Tensor) -> Tensor:
            return self.task.behaviour.activate(outputs, self.task)

        is_last = rule == "logit"
        values = logits if is_last else activate(logits)
        reduced = _REDUCED[rule](values.view(*shape, -1))
        return activate(reduced) if is_last else reduced

    def _calibrated(self, values: Tensor) -> Tensor:
        """As `Calibration.apply` and `ClassCalibration.apply`."""
        if self.calibration is None:
            return values
        if isinstance(self.calibration, Calibration):
            temperatures, biases = (
                torch.tensor(numbers, dtype=torch.float64)
                for numbers in (self.calibration.temperatures, self.calibration.biases)
            )
            logits = values.log() - (1 - values).log()
            return torch.sigmoid(logits / temperatures + biases)
        if self.calibration.weights:
            values = values / torch.tensor(self.calibration.weights, dtype=torch.float64)
        return (values.log() / self.calibration.temperature).softmax(dim=1)


class _Constant(nn.Module):
    """The result of a module that depends on nothing but its parameters."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, *_: Any) -> Tensor:
        """Return it."""
        return self.value


def _with_constants(network: nn.Module, x: Tensor) -> nn.Module:
    """A copy of a network in which modules that take no tensor are their results for input x."""
    network, results = copy.deepcopy(network).eval(), dict[nn.Module, Tensor]()

    def keep(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        if isinstance(result, Tensor) and not any(isinstance(x, Tensor) for x in arguments):
            results[module] = result

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    for name, module in list(network.named_modules()):
        if name and module in results:
            network.set_submodule(name, _Constant(results[module]))
    return network


def _trial_records(model: Model) -> Tensor:
    """A simulated ECG and noise, in front of the window, (records, leads, samples)."""
    record = sample_record()
    preparation = model.preparation.padding()
    whole = whole_record(preparation, record.select(preparation.sources))
    noise = np.random.default_rng(0).standard_normal((_TRIAL_RECORDS - 1, *whole.shape))
    return torch.from_numpy(np.concatenate([whole[None], noise.astype(np.float32)]))


def _traced(graph: _Graph, records: Tensor) -> bytes:
    """The graph as ONNX, with any number of records and samples."""
    from onnxscript.optimizer import optimize

    count = torch.export.Dim("records", min=1, max=_MOST)
    samples = torch.export.Dim("samples", min=graph.preparation.crop.samples, max=_MOST)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                (records,),
                dynamo=True,
                dynamic_shapes=({0: count, 2: samples},),
                input_names=[INPUT],
                output_names=graph.names,
                verbose=False,
            )
            assert program is not None
            optimize(program.model, input_size_limit=_MOST, output_size_limit=_MOST)
    except Exception as error:  # whatever the exporter meets in a network
        raise ModelError(
            f"{type(graph.network).__name__} cannot be exported: {_reason(error)}",
            remedy="use the model in PyTorch",
        ) from error
    proto = program.model_proto
    _unfuse(proto)
    _share(proto.graph)
    for node in proto.graph.node:
        del node.metadata_props[:]  # stack traces
    content: bytes = proto.SerializeToString()
    return content


def _share(graph: Any) -> None:
    """Keep one of several equal constants, such as the waves that all layers use."""
    first: dict[tuple[Any, ...], str] = {}
    names, constants = dict[str, str](), []
    for constant in graph.initializer:
        key = (constant.data_type, tuple(constant.dims), constant.raw_data)
        names[constant.name] = first.setdefault(key, constant.name)
        if not constant.raw_data or names[constant.name] == constant.name:
            names[constant.name] = constant.name
            constants.append(constant)
    del graph.initializer[:]
    graph.initializer.extend(constants)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _reason(error: BaseException) -> str:
    """First line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _unfuse(proto: Any) -> None:
    """Keep onnxruntime from fusing a sum and the norm behind it.

    Its fused operation takes five times as long as both (`benchmarks/bench_onnx.py`).
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type == "LayerNormalization":
            maker = makers.get(node.input[0])
            if maker is not None and maker.op_type == "Add":
                maker.op_type = "Sum"


def _quantised(content: bytes) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(content)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
        return target.read_bytes()


def _check_parity(
    content: bytes,
    trials: list[Tensor],
    expected: list[NDArray[np.floating[Any]]],
    *,
    is_probability: bool,
) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options)
        made = [session.run(None, {INPUT: trial.numpy()})[0] for trial in trials]
    except Exception as error:  # its exceptions have no common base
        raise ModelError(
            f"onnxruntime {onnxruntime.__version__} does not run the graph: {_reason(error)}",
            remedy="use the model in PyTorch, or another version of onnxruntime",
        ) from error
    reference, made_all = np.concatenate(expected), np.concatenate(made)
    scale = 1.0 if is_probability else max(1.0, float(np.abs(reference).max()))
    deviation = float(np.abs(made_all - reference).max()) / scale
    if not deviation <= TOLERANCE:
        raise ModelError(
            f"the graph's predictions differ from PyTorch's by {deviation:.1e}, more than "
            f"{TOLERANCE:g}",
            remedy="use the model in PyTorch",
        )


def _takes_zeros(model: Model, records: Tensor) -> bool:
    """Whether the model predicts the same for missing leads as for zeros in their place."""
    preparation, network = model.preparation, model.classifier
    crops, names = records[..., : preparation.crop.samples], preparation.leads
    if len(names) == 1:
        return False
    rows = [[row for row in range(len(names)) if row != left_out] for left_out in range(len(names))]
    for some in (*rows, *([row] for row in range(len(names)))):
        leads = tuple(names[row] for row in some)
        zeros = torch.zeros_like(crops)
        zeros[:, some] = crops[:, some]
        own = preparation.with_leads(leads)
        try:
            with torch.no_grad():
                without = network(finish_crops(own, crops[:, some]), leads=leads)
        except (BackboneError, EinthovenError):
            return False
        with torch.no_grad():
            if not torch.allclose(
                network(finish_crops(preparation, zeros)), without, atol=TOLERANCE, rtol=TOLERANCE
            ):
                return False
    return True


def _serialised(metadata: dict[str, str]) -> bytes:
    """Metadata as a message that extends the graph's: protobuf joins messages in one file."""
    from onnx import ModelProto

    proto = ModelProto()
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = proto.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own work."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
