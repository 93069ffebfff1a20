"""The static page: the model in headless Chromium, with nothing but a server of files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from browser import chromium, opened
from numpy.typing import NDArray
from scipy.signal import resample
from served import LABELS, small_model

from einthoven.errors import EvaluationError, FileError
from einthoven.explain import attribute, shares_of
from einthoven.files import Json
from einthoven.inference import RecordPrediction, predict_record
from einthoven.models import Model, save_model
from einthoven.predictions import ClassCalibration, ClassSets, LabelSets, ValueIntervals
from einthoven.records import Record, read_record
from einthoven.records.csv_write import csv_content
from einthoven.records.quality import findings
from einthoven.records.wfdb import write_wfdb
from einthoven.serve import write_site
from einthoven.serve.site import RUNTIME_FILES, _add_runtime
from einthoven.signals.steps import Filter

Signal: TypeAlias = NDArray[np.float32]


@pytest.fixture(scope="module")
def slow_record(record: Record) -> Record:
    """The record at 100 Hz, the rate of the models' windows, so that no step changes its time."""
    signal = resample(record.signal, round(record.duration * 100), axis=1)
    return replace(record, signal=np.float32(signal), rate=100.0)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """onnxruntime-web's files: from the folder ONNXRUNTIME_WEB, or from npm."""
    if named := os.environ.get("ONNXRUNTIME_WEB"):
        return Path(named)
    found = tmp_path_factory.mktemp("dist")
    try:
        _add_runtime(found, None)
    except EvaluationError as error:
        pytest.skip(error.problem)
    return found


@pytest.fixture
def no_runtime(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in RUNTIME_FILES:
        (folder / name).write_bytes(b"")
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def models(model: Model) -> dict[str, Model]:
    """A model of labels, one of classes and one of a number, each with prediction sets."""
    task = {"kind": "regression", "target": "age", "unit": "years", "mean": [60.0], "scale": [10.0]}
    wide = small_model("classes", LABELS, {"task": {"kind": "multiclass"}})
    number = small_model("number", ("age",), {"task": task})
    return {
        "labels": replace(model, sets=LabelSets(0.9, (0.2, 1.0, None), (0.9, 0.0, 0.5))),
        "classes": replace(
            wide, calibration=ClassCalibration(3, 1.5), sets=ClassSets(0.9, (0.0, 1.0, None))
        ),
        "number": replace(number, calibration=None, sets=ValueIntervals(0.9, (2.5,))),
    }


@pytest.fixture(scope="module")
def pages(
    models: dict[str, Model], runtime: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A page of each model."""
    pytest.importorskip("onnxscript")
    out = tmp_path_factory.mktemp("page")
    for name, model in models.items():
        write_site(save_model(model, out / f"{name}.model"), out / name, runtime=runtime)
    handler = partial(_Quiet, directory=out)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    with chromium() as browser, ExitStack() as stack:
        opening = {name: opened(browser, f"{address}/{name}/") for name in models}
        pages = {name: stack.enter_context(page) for name, page in opening.items()}
        for page in pages.values():
            page.wait_for_selector("#model-line:not(:empty)")
        yield pages
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(pages: dict[str, Any]) -> Any:
    return pages["labels"]


def answered(page: Any, files: list[Path], folder: Path, rate: float = 500) -> Json:
    """The JSON that the page offers."""
    page.evaluate("document.getElementById('result').hidden = true")
    page.set_input_files("#file", [str(file) for file in files])
    if files[0].suffix == ".csv":
        page.fill("#stated input[name=rate]", str(rate))
        page.select_option("#stated select", "mV")
        page.click("#stated button")
    page.wait_for_selector("#result:not([hidden])")
    with page.expect_download() as download:
        page.click("#download-json")
    download.value.save_as(folder / "answer.json")
    answer: Json = json.loads((folder / "answer.json").read_text())
    return answer


def written(record: Record, folder: Path) -> list[Path]:
    (folder / "ecg.csv").write_bytes(csv_content(record)[0])
    return [folder / "ecg.csv"]


def assert_same(answer: Json, prediction: RecordPrediction) -> None:
    """The fields of a prediction: numbers within 1e-5, and all else equal."""
    expected = prediction.to_json("") | {"leads": list(prediction.record.leads)}
    for name in ("probabilities", "values", "uncalibrated", "thresholds"):
        assert answer.get(name) == pytest.approx(expected.get(name), abs=1e-5)
    for name, ends in expected["intervals"].items():
        assert answer["intervals"][name] == pytest.approx(ends, abs=1e-4)
    for name in ("answers", "class_set", "above_threshold", "without_call", "derived_leads"):
        assert answer[name] == expected[name]
    for name in ("class", "units"):
        assert answer.get(name) == expected.get(name)
    kinds = [(each["name"], each["level"], each["leads"]) for each in answer["findings"]]
    assert kinds == [(each.name, each.level, [*each.leads]) for each in prediction.findings]
    assert len(answer["warnings"]) == len(prediction.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dicom", "csv", "wfdb"])
def test_the_browser_predicts_as_python_does(
    kind: str,
    page: Any,
    models: dict[str, Model],
    record: Record,
    dicom: bytes,
    tmp_path: Path,
) -> None:
    files = [tmp_path / "ecg.hea", tmp_path / "ecg.dat"]
    if kind == "wfdb":
        write_wfdb(tmp_path / "ecg", record.signal, rate=500, leads=record.leads)
        record = read_record(files[0])
    elif kind == "csv":
        files = written(record, tmp_path)
    else:
        files = [tmp_path / "ecg.dcm"]
        files[0].write_bytes(dicom)
        record = read_record(dicom)
    answer = answered(page, files[::-1], tmp_path)
    assert_same(answer, predict_record(models["labels"], record))
    assert answer["record"] == files[0].name
    if kind != "csv":  # whose record is not read from the file
        assert answer["sha256"] == record.source_hash
    assert page.locator("#paper path[data-lead]").count() == 13


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classes", "number"])
def test_classes_and_numbers_have_their_sets(
    name: str, pages: dict[str, Any], models: dict[str, Model], record: Record, tmp_path: Path
) -> None:
    answer = answered(pages[name], written(record, tmp_path), tmp_path)
    assert_same(answer, predict_record(models[name], record))
    assert answer["class_set"] if name == "classes" else answer["intervals"]
    cells = pages[name].locator("#predictions tbody td").all_inner_texts()
    assert any("possible" in cell or " to " in cell for cell in cells)


def _flat(signal: Signal) -> None:
    signal[1] = 0  # II follows from I and III


def _small(signal: Signal) -> None:
    signal /= 1000


def _offset(signal: Signal) -> None:
    signal[6:9] += 0.6
    signal += 2 * np.sin(np.arange(signal.shape[1]) / 700).astype(np.float32)


def _hum(signal: Signal) -> None:
    signal += 0.1 * np.sin(2 * np.pi * 50 * np.arange(signal.shape[1]) / 500).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [_flat, _small, _offset, _hum])
def test_a_faulty_recording_is_predicted_as_python_does(
    damage: Callable[[Signal], None],
    page: Any,
    models: dict[str, Model],
    record: Record,
    tmp_path: Path,
) -> None:
    signal = record.signal.copy()
    damage(signal)
    record = replace(record, signal=signal)
    expected = predict_record(models["labels"], record)
    assert expected.findings
    assert_same(answered(page, written(record, tmp_path), tmp_path), expected)


def _faults(record: Record) -> Iterator[tuple[str, Signal]]:
    """A name of a finding, and a signal that has it."""
    x, rng = record.signal, np.random.default_rng(0)
    noise = rng.standard_normal(x.shape).astype(np.float32)

    def changed(leads: Any, values: Any, samples: Any = slice(None)) -> Signal:
        signal = x.copy()
        signal[leads, samples] = values
        return signal

    yield "", x
    yield "electrodes", x[[0, 1, 2, 3, 4, 5, 8, 7, 6, 9, 10, 11]]
    yield "limb-leads", changed(1, -x[1])
    yield "lead-off", changed(8, 0, slice(200, 500))
    yield "no-signal", changed(slice(None), 0, slice(600, None))
    yield "identical-leads", changed(9, x[8])
    yield "clipping", np.clip(x, None, np.quantile(x, 0.98, axis=1, keepdims=True))
    yield "noise", x + 0.06 * noise
    yield "baseline-wander", x + 2 * np.sin(np.arange(x.shape[1]) / 140).astype(np.float32)
    yield "dropouts", np.where(rng.random(x.shape) < 0.02, 0, x)
    yield "offset", x + np.float32(0.5)
    yield "artefact", changed(5, 9, slice(100, 120))
    yield "amplitude", x * 8
    yield "unit", x * 1000
    yield "beats", -x
    yield "beats", x[:, ::-1]


@pytest.mark.slow
def test_findings_are_those_of_python(page: Any, slow_record: Record) -> None:
    names, signals = zip(*_faults(slow_record), strict=True)
    records = [replace(slow_record, signal=np.float32(signal)) for signal in signals]
    script = """async (signals) => {
        const { findingsOf } = await import(new URL("assets/quality.js", location));
        const model = await (await fetch("model.json")).json();
        return signals.map((signal) => findingsOf({
            ...signal, rows: signal.rows.map((row) => Float32Array.from(row)),
        }, { ...model, passes_offsets: false }));
    }"""
    sent = [
        {"rate": each.rate, "leads": each.leads, "rows": each.signal.tolist()} for each in records
    ]
    found = page.evaluate(script, sent)
    for name, each, results in zip(names, records, found, strict=True):
        expected = findings(each)
        assert not name or name in {finding.name for finding in expected}
        kinds = [(result["name"], result["level"], tuple(result["leads"])) for result in results]
        assert kinds == [(x.name, x.level, x.leads) for x in expected]


@pytest.mark.slow
def test_an_explanation_is_that_of_python(
    page: Any, models: dict[str, Model], slow_record: Record, tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    answered(page, written(slow_record, tmp_path), tmp_path, slow_record.rate)
    page.click("#predictions tbody button:has-text('AFIB')")
    page.wait_for_selector("#why:not([hidden])", timeout=120_000)
    assert page.locator("#paper path.for").count() > 0
    script = """async () => (await import(new URL("assets/backend.js", location))).explain(
        null, null, null, "AFIB", "", () => {})"""
    answer = page.evaluate(script)
    expected = attribute(models["labels"], slow_record, "AFIB", "occlusion-waves")
    assert answer["rate"] == expected.rate == slow_record.rate
    assert np.array(answer["values"]) == pytest.approx(expected.values, abs=1e-5)
    assert answer["output"] == pytest.approx(expected.output, abs=1e-4)
    assert answer["words"] == shares_of(expected, slow_record).in_words()


@pytest.mark.slow
def test_the_browser_refuses_what_it_cannot_read(page: Any, tmp_path: Path) -> None:
    for name, content in (("ecg.xml", b"<a/>"), ("ecg.dat", b"\0\0"), ("ecg.dcm", bytes(200))):
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#file", str(tmp_path / name))
        page.wait_for_selector("#error:not([hidden])")
        assert page.locator("#error p").count() == 2
        page.evaluate("document.getElementById('error').hidden = true")


@pytest.mark.slow
def test_the_example_of_the_site_is_marked_as_simulated(page: Any) -> None:
    page.click("#example")
    page.wait_for_selector("#simulated:not([hidden])")
    assert set(page.locator("#predictions tbody th").all_inner_texts()) == set(LABELS)


def test_a_site_needs_a_new_folder_and_the_runtime(
    folder: Path, no_runtime: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match="dist"):
        write_site(folder, no_runtime, runtime=no_runtime)
    (no_runtime / RUNTIME_FILES[1]).unlink()
    with pytest.raises(EvaluationError, match=RUNTIME_FILES[1]):
        write_site(folder, tmp_path / "site", runtime=no_runtime)
    assert not (tmp_path / "site" / "index.html").exists()


def test_steps_that_the_page_does_not_know_are_refused(no_runtime: Path, tmp_path: Path) -> None:
    model = small_model()
    steps = (Filter("highpass", 0.5, order=3), *model.preparation.steps)
    other = replace(model, preparation=replace(model.preparation, steps=steps))
    folder = save_model(other, tmp_path / "model")
    with pytest.raises(EvaluationError, match="highpass"):
        write_site(folder, tmp_path / "site", runtime=no_runtime)
