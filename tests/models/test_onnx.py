"""Exported models: the same predictions in onnxruntime, with and without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import SMALL

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.layers.long_convolution import _fft_convolve, _matrix_convolve
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import EinthovenError, ModelError
from einthoven.inference import Predictor, predict_record
from einthoven.models import Model, OnnxModel, load_model, save_model
from einthoven.predictions import Calibration, ClassCalibration
from einthoven.records import Record, read_record
from einthoven.records.wfdb_write import write_wfdb
from einthoven.signals.prepare import whole_record

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from einthoven.models import export_onnx, load_onnx  # noqa: E402
from einthoven.models.onnx_export import _Graph  # noqa: E402

RECORDS = 500


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The included model."""
    return export_onnx(out=tmp_path_factory.mktemp("onnx") / "small.onnx")


def small_model(name: str, labels: tuple[str, ...] = ("a", "b", "c"), **fields: Any) -> Model:
    """A small network with random weights."""
    net = create_backbone(name, seed=0, **SMALL.get(name, {}))
    net.fit_statistics([torch.randn(8, len(net.leads), net.preparation.window)])
    return Model(Classifier(net, labels), net.preparation, **fields)


def reading(*records: Record) -> list[Callable[[], Record]]:
    """Functions that return the records."""
    return [lambda record=record: record for record in records]


def differences(model: Model, other: OnnxModel, readers: list[Callable[[], Record]]) -> float:
    """Largest difference of a probability, calibrated or not; calls are compared too."""
    largest = 0.0
    for one, two in zip(Predictor(model)(readers), Predictor(other)(readers), strict=True):
        assert not isinstance(one, Exception), one
        assert not isinstance(two, Exception), two
        assert one.probabilities.keys() == two.probabilities.keys()
        assert (one.findings, one.warnings, one.thresholds) == (
            two.findings,
            two.warnings,
            two.thresholds,
        )
        assert (one.answers, one.class_set) == (two.answers, two.class_set)
        assert (one.above_threshold, one.predicted_class) == (
            two.above_threshold,
            two.predicted_class,
        )
        for first, second in (
            (one.probabilities, two.probabilities),
            (one.uncalibrated or {}, two.uncalibrated or {}),
            (one.values, two.values),
        ):
            gaps = np.abs(np.array(list(first.values())) - np.array(list(second.values())))
            largest = max(largest, float(np.nanmax(gaps, initial=0.0)))
    return largest


@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 125])
def test_the_convolution_by_real_matrices_is_the_one_by_fft(tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(2, tokens, 5, generator=generator, dtype=torch.float64)
    taps = torch.randn(5, 2 * tokens - 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(_matrix_convolve(x, taps), _fft_convolve(x, taps))


def test_the_included_model_predicts_the_same(exported: Path) -> None:
    record = sample_record()
    longer = replace(record, signal=np.tile(record.signal, (1, 2)))
    short = replace(record, signal=record.signal[:, :1300])
    fewer = record.select(["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"])
    readers = reading(record, longer, short, fewer)
    assert differences(load_model(), load_onnx(exported), readers) < 1e-5


def test_missing_leads_are_treated_as_in_pytorch(exported: Path) -> None:
    record = sample_record()
    model, other = load_model(), load_onnx(exported)
    one, two = (predict_record(each, record, leads=("I", "II")) for each in (model, other))
    assert one.left_out_leads == two.left_out_leads
    assert one.without_call == two.without_call
    np.testing.assert_allclose(
        list(one.probabilities.values()), list(two.probabilities.values()), atol=1e-5
    )


def test_a_record_is_refused_as_in_pytorch(exported: Path) -> None:
    record = sample_record()
    short = replace(record, signal=record.signal[:, :300])
    problems = []
    for model in (load_model(), load_onnx(exported)):
        with pytest.raises(EinthovenError) as refused:
            predict_record(model, short)
        problems.append((refused.value.problem, refused.value.remedy))
    assert problems[0] == problems[1]


def test_any_program_gets_calibrated_probabilities(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    about = session.get_modelmeta().custom_metadata_map
    leads = json.loads(about["leads"])
    record = sample_record().select(leads)
    signal = record.signal - record.signal.mean(1, keepdims=True)
    at_100_hz = np.asarray(signal[:, ::5])  # nearly band-limited: close to the real preparation
    assert (about["rate"], about["unit"], about["window"]) == ("100", "mV", "250")
    probabilities, _ = session.run(None, {"ecg": at_100_hz[None].astype(np.float32)})
    assert probabilities.shape == (1, len(json.loads(about["labels"])))
    expected = predict_record(load_model(), record).probabilities
    np.testing.assert_allclose(probabilities[0], list(expected.values()), atol=0.05)
    three = np.stack([at_100_hz] * 3).astype(np.float32)
    np.testing.assert_allclose(
        session.run(None, {"ecg": three})[0], np.repeat(probabilities, 3, 0), atol=1e-6
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"aggregate": "max", "calibration": Calibration((0.5, 2.0), (0.3, -1.0), (0.5, 0.2))},
        {"aggregate": ("logit", "probability")},
        {
            "aggregate": "logit",
            "calibration": ClassCalibration(2, 1.7, (0.5, 2.0)),
            "config": {"task": {"kind": "multiclass", "target": "x", "classes": ["a", "b"]}},
        },
        {
            "config": {
                "task": {
                    "kind": "regression",
                    "target": ["a", "b"],
                    "mean": [40.0, -3.0],
                    "scale": [9.0, 2.0],
                }
            }
        },
    ],
)
def test_tasks_rules_and_calibrations(fields: dict[str, Any]) -> None:
    model = small_model("s4_tiny", ("a", "b"), **fields)
    record = sample_record()
    whole = torch.from_numpy(whole_record(model.preparation, record))[None]
    with torch.no_grad():
        made = _Graph(model).eval()(whole)[0][0]
    expected = predict_record(model, record)
    values = expected.values or expected.probabilities
    np.testing.assert_allclose(made, list(values.values()), rtol=1e-5, atol=1e-6)


def test_int8_is_smaller_and_close(tmp_path: Path, exported: Path) -> None:
    file = export_onnx(out=tmp_path / "int8.onnx", int8=True)
    assert file.stat().st_size < exported.stat().st_size
    values = [predict_record(load_onnx(each), sample_record()) for each in (exported, file)]
    one, two = (np.array(list(value.probabilities.values())) for value in values)
    assert 0 < np.abs(one - two).max() < 0.2


def test_damaged_and_foreign_files_are_refused(tmp_path: Path, exported: Path) -> None:
    content = bytearray(exported.read_bytes())
    content[len(content) // 2] ^= 1
    damaged, missing = tmp_path / "damaged.onnx", tmp_path / "missing.onnx"
    damaged.write_bytes(content)
    for file in (damaged, missing):
        with pytest.raises(ModelError):
            load_onnx(file)


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    encoder = create_backbone("s4_tiny", seed=0)
    folder = save_model(Model(encoder, encoder.preparation), tmp_path / "encoder", card=False)
    with pytest.raises(ModelError):
        export_onnx(folder, out=tmp_path / "encoder.onnx")
    with pytest.raises(ModelError):
        export_onnx(out=tmp_path / "model.bin")
    assert {path.name for path in tmp_path.iterdir()} == {"encoder"}


def test_prediction_runs_without_pytorch(tmp_path: Path, exported: Path) -> None:
    """In a process in which PyTorch cannot be imported, from the command line."""
    record = sample_record()
    write_wfdb(tmp_path / "ecg", record.signal, rate=record.rate, leads=record.leads)
    file = tmp_path / "ecg.hea"
    code = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
from einthoven.cli import main
main(["predict", {str(file)!r}, "--model", {str(exported)!r}, "--json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    expected = predict_record(load_model(), read_record(file))
    assert made["above_threshold"] == list(expected.above_threshold or ())
    for label, value in expected.probabilities.items():
        assert made["probabilities"][label] == pytest.approx(value, abs=1e-5)


@pytest.fixture(scope="module")
def ptbxl_500(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of the first 500 records of PTB-XL."""
    folder = tmp_path_factory.mktemp("ptbxl") / "data"
    unpack = shared / "data" / "ptbxl" / "unpack.py"
    subprocess.run([sys.executable, unpack, folder, "--records", str(RECORDS)], check=True)
    return sorted(folder.rglob("*.hea"))[:RECORDS]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, "einthoven-small"])
def test_500_records_have_the_same_probabilities(
    name: str, tmp_path: Path, ptbxl_500: list[Path]
) -> None:
    """At most 1e-5 apart, for every network and the included model."""
    assert len(ptbxl_500) == RECORDS
    folder: Path = tmp_path / name
    if name == "einthoven-small":
        folder = Path(name)
    else:
        save_model(small_model(name), folder, card=False)
    other = load_onnx(export_onnx(folder, out=tmp_path / "model.onnx"))
    model = load_model(folder)
    readers = [partial(read_record, file) for file in ptbxl_500]
    for start in range(0, len(readers), 50):
        assert differences(model, other, readers[start : start + 50]) < 1e-5


def test_real_records_have_the_same_probabilities(exported: Path, ptbxl_60: Path) -> None:
    readers = [partial(read_record, file) for file in sorted(ptbxl_60.rglob("*.hea"))[:8]]
    assert differences(load_model(), load_onnx(exported), readers) < 1e-5
