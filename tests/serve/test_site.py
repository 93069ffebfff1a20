"""The static page: the model in headless Chromium, with nothing but a server of files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, opened
from served import LABELS, small_model

from einthoven.errors import EvaluationError, FileError
from einthoven.inference import predict_record
from einthoven.models import Model, save_model
from einthoven.records import Record, read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.serve import write_site
from einthoven.serve.site import RUNTIME_FILES, _add_runtime
from einthoven.signals.steps import Filter


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
def page(folder: Path, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("onnxscript")
    out = tmp_path_factory.mktemp("page")
    write_site(folder, out / "site", runtime=runtime)
    handler = partial(_Quiet, directory=out / "site")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    with chromium() as browser, opened(browser, address) as page:
        page.wait_for_selector("#model-line:not(:empty)")
        yield page
    server.shutdown()
    server.server_close()


def answered(page: Any, files: list[Path], tmp_path: Path) -> dict[str, float]:
    """Probabilities that the page shows, read from its JSON."""
    page.evaluate("document.getElementById('result').hidden = true")
    page.set_input_files("#file", [str(file) for file in files])
    if files[0].suffix == ".csv":
        page.fill("#stated input[name=rate]", "500")
        page.select_option("#stated select", "mV")
        page.click("#stated button")
    page.wait_for_selector("#result:not([hidden])")
    with page.expect_download() as download:
        page.click("#download-json")
    download.value.save_as(tmp_path / "answer.json")
    answer: dict[str, float] = json.loads((tmp_path / "answer.json").read_text())["probabilities"]
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dicom", "csv", "wfdb"])
def test_the_browser_predicts_as_python_does(
    kind: str,
    page: Any,
    model: Model,
    record: Record,
    dicom: bytes,
    csv: bytes,
    tmp_path: Path,
) -> None:
    if kind == "wfdb":
        write_wfdb(tmp_path / "ecg", record.signal, rate=500, leads=record.leads)
        files = [tmp_path / "ecg.hea", tmp_path / "ecg.dat"]
        expected = predict_record(model, read_record(files[0]))
    else:
        files = [tmp_path / {"dicom": "ecg.dcm", "csv": "ecg.csv"}[kind]]
        files[0].write_bytes(dicom if kind == "dicom" else csv)
        expected = predict_record(model, read_record(dicom) if kind == "dicom" else record)
    assert answered(page, files, tmp_path) == pytest.approx(expected.probabilities, abs=1e-5)
    assert page.locator("#paper path[data-lead]").count() == 13


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
