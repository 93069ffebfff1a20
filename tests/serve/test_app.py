"""Answers of the server, and its refusals."""

from __future__ import annotations

import base64
import json
import resource
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edf_files import sound_edf
from ishne_files import sound_ishne
from scp_files import sound_scp
from served import LABELS, STATED, Started
from xml_files import sound_aecg, sound_muse, sound_philips

from einthoven.errors import RecordError
from einthoven.explain import Gallery
from einthoven.inference import predict_record
from einthoven.models import Model, OnnxModel
from einthoven.records import Record, read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.serve.models import ServedModel, Similar

if TYPE_CHECKING:
    import httpx


def post(client: httpx.Client, path: str, content: bytes, **query: str) -> httpx.Response:
    return client.post(path, content=content, params=query)


def test_a_prediction_is_that_of_the_command(
    client: httpx.Client, model: Model, dicom: bytes
) -> None:
    answer = post(client, "/predict", dicom).json()
    expected = json.loads(json.dumps(predict_record(model, read_record(dicom)).to_json("upload")))
    assert {key: answer[key] for key in expected} == expected
    assert answer["model"] == {"name": "small", "digest": "0" * 64}
    assert (answer["rate"], answer["duration"]) == (500, 10)
    assert "signal" not in answer


def test_a_form_and_a_body_are_answered_alike(client: httpx.Client, csv: bytes) -> None:
    form = client.post("/predict", files={"file": ("dir/ecg.csv", csv)}, params=STATED)
    named = {"Content-Disposition": 'attachment; filename="ecg.csv"'}
    body = client.post("/predict", content=csv, params=STATED, headers=named)
    assert form.status_code == body.status_code == 200
    assert form.content == body.content
    assert form.json()["record"] == "ecg.csv"


def test_the_signal_is_in_the_answer_where_it_is_wanted(
    client: httpx.Client, dicom: bytes, record: Record
) -> None:
    signal = post(client, "/predict", dicom, signal="true").json()["signal"]
    rows = [np.frombuffer(base64.b64decode(row), "<i2") for row in signal["samples"]]
    assert signal["leads"] == list(record.leads)
    np.testing.assert_allclose(np.stack(rows) / 1000, record.signal, atol=0.0011)


def test_records_of_a_batch_have_the_bytes_that_they_have_alone(
    client: httpx.Client, dicom: bytes
) -> None:
    alone = post(client, "/predict", dicom).content
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda _: post(client, "/predict", dicom).content, range(24)))
    assert set(together) == {alone}


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_processes_answer_as_threads_do(
    client: httpx.Client, started: Started, dicom: bytes
) -> None:
    with started(processes=True) as other, ThreadPoolExecutor(4) as pool:
        for content in (dicom, b"nothing"):
            jobs = [pool.submit(post, other, "/predict", content) for _ in range(4)]
            answers = {job.result().content for job in jobs}
            assert answers == {post(client, "/predict", content).content}


def test_the_largest_steady_batch_is_found(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServedModel("small", model, most=3).batch == 3
    outputs = type(ServedModel("small", model, most=1).predictor._runtime).outputs

    def other_in_threes(self: Any, network: Any, signals: Any) -> Any:
        return outputs(self, network, signals) * (1 + 1e-15 * (len(signals) >= 3))

    monkeypatch.setattr(
        type(ServedModel("small", model, most=1).predictor._runtime), "outputs", other_in_threes
    )
    assert ServedModel("small", model, most=4).batch == 2


def test_an_explanation_names_leads_and_waves(client: httpx.Client, dicom: bytes) -> None:
    answer = post(client, "/explain", dicom, label="AFIB", method="occlusion-leads").json()
    assert answer["label"] == "AFIB"
    assert np.array(answer["values"]).shape == (12, 1000)
    assert answer["rate"] == 100
    assert sum(answer["by_lead"].values()) == pytest.approx(1)


def test_an_explanation_names_similar_records_of_other_patients(
    client: httpx.Client, started: Started, model: Model, dicom: bytes, record: Record
) -> None:
    own = np.array(post(client, "/embed", dicom).json()["embedding"], np.float32)
    others = np.random.default_rng(0).standard_normal((6, len(own))).astype(np.float32)
    gallery = Gallery.of([f"r{i}" for i in range(8)], list("aabbbbcc"), [own, -own, *others])
    similar = Similar(gallery, [["AFIB"], [], *[["NORM"]] * 6])
    with started(similar=similar) as other:
        rows = post(other, "/explain", dicom, label="AFIB", method="occlusion-leads").json()
    assert len(rows["similar"]) == 5
    assert rows["similar"][0] == {"record": "r0", "distance": 0.0, "labels": ["AFIB"]}
    without = similar.nearest(own, replace(record, patient="a"))
    assert {row["record"] for row in without}.isdisjoint({"r0", "r1"})


def test_an_exported_model_predicts_and_does_not_explain(
    exported: OnnxModel, started: Started, dicom: bytes
) -> None:
    with started(models={"exported": exported}) as client:
        answer = post(client, "/predict", dicom).json()
        expected = predict_record(exported, read_record(dicom)).to_json("upload")
        assert answer["probabilities"] == expected["probabilities"]
        for path, query in (("/explain", {"label": "AFIB"}), ("/embed", {})):
            refusal = post(client, path, dicom, **query)
            assert refusal.status_code == 422
            assert "einthoven serve" in refusal.json()["remedy"]
        (description,) = client.get("/models").json()["models"]
        assert (description["runtime"], description["explains"]) == ("onnx", False)


def test_an_embedding_has_the_width_of_the_backbone(
    client: httpx.Client, model: Model, dicom: bytes
) -> None:
    answer = post(client, "/embed", dicom).json()
    assert answer["shape"] == [model.backbone.feature_dim] == [len(answer["embedding"])]


def test_the_server_describes_itself(client: httpx.Client) -> None:
    (description,) = client.get("/models").json()["models"]
    assert [label["name"] for label in description["labels"]] == list(LABELS)
    assert client.get("/healthz").json()["status"] == "ok"
    assert set(client.get("/openapi.json").json()["paths"]) == {
        "/predict",
        "/explain",
        "/embed",
        "/models",
        "/healthz",
        "/metrics",
        "/example.csv",
    }


def test_the_example_is_a_readable_ecg(client: httpx.Client) -> None:
    example = client.get("/example.csv").content
    answer = client.post("/predict", files={"file": ("example.csv", example)}, params=STATED)
    assert answer.json()["duration"] == 10


def test_metrics_count_requests_by_path_and_status(started: Started, dicom: bytes) -> None:
    with started() as client:
        post(client, "/predict", dicom)
        post(client, "/predict", b"nothing")
        client.get("/admin.php")
        text = client.get("/metrics").text
    for path, status in (("/predict", 200), ("/predict", 422), ("other", 404)):
        assert f'einthoven_requests_total{{path="{path}",status="{status}"}} 1.0' in text
    assert "einthoven_batch_records_count 2.0" in text


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/predict", {"model": "other"}, 404),
        ("/predict", {"rate": "fast"}, 422),
        ("/explain", {}, 422),
        ("/explain", {"label": "NONE"}, 422),
        ("/explain", {"label": "AFIB", "method": "none"}, 422),
        ("/embed", {"level": "none"}, 422),
        ("/nowhere", {}, 404),
    ],
)
def test_refusals_have_a_problem_and_a_remedy(
    client: httpx.Client, dicom: bytes, path: str, query: dict[str, str], status: int
) -> None:
    answer = post(client, path, dicom, **query)
    assert answer.status_code == status
    assert set(answer.json()) == {"problem", "remedy"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"--x\r\nnothing", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n1\r\n' * 2
            + b"--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_a_form_without_one_file_is_refused(
    client: httpx.Client, content: bytes, kind: str
) -> None:
    answer = client.post("/predict", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400


def test_the_files_of_a_wfdb_record_are_one_ecg(
    client: httpx.Client, model: Model, record: Record, tmp_path: Path
) -> None:
    write_wfdb(tmp_path / "ecg", record.signal, rate=500, leads=record.leads)
    data = {name: (tmp_path / name).read_bytes() for name in ("ecg.dat", "ecg.hea")}
    answer = client.post("/predict", files=[("file", pair) for pair in data.items()]).json()
    expected = predict_record(model, read_record(tmp_path / "ecg.hea"))
    assert answer["probabilities"] == expected.probabilities
    assert answer["record"] == "ecg.hea"
    for name in data:
        alone = client.post("/predict", files={"file": (name, data[name])})
        assert alone.status_code == 422


def test_a_header_reads_no_file_of_the_server(client: httpx.Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret.dat"
    secret.write_bytes(bytes(20000))
    for path in (secret, "../../" * 9 + str(secret)):
        header = f"ecg 1 500 10000\n{path} 16 200 16 0 0 0 0 I\n".encode()
        files = [("file", ("ecg.hea", header)), ("file", ("ecg.dat", b"1"))]
        answer = client.post("/predict", files=files)
        assert answer.status_code == 422


def test_a_refusal_names_the_file_of_the_sender(client: httpx.Client) -> None:
    answer = client.post("/predict", files={"file": ("ward 3.dcm", b"nothing")})
    assert answer.status_code == 422
    assert answer.json()["problem"].startswith("ward 3.dcm")


def test_an_upload_is_not_written_to_disk(
    client: httpx.Client, csv: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a temporary file")

    for name in ("NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    large = csv + b"\n" * 2_000_000
    assert len(large) > 1 << 20
    files = {"file": ("ecg.csv", large)}
    assert client.post("/predict", files=files, params=STATED).status_code in (200, 422)


def test_a_large_body_is_refused(started: Started, dicom: bytes) -> None:
    with started(body=1000) as client:
        assert post(client, "/predict", dicom).status_code == 413
        parts = (dicom[place : place + 100] for place in range(0, 3000, 100))
        assert client.post("/predict", content=parts).status_code == 413
        assert post(client, "/predict", bytes(1000)).status_code == 422


def test_a_slow_upload_is_ended(started: Started) -> None:
    with started(seconds=0.3) as client:
        host, port = client.base_url.host, client.base_url.port
        assert port is not None
        with socket.create_connection((host, port)) as sender:
            sender.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n1")
            assert sender.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Predictions wait for this event."""
    event, predict = threading.Event(), ServedModel.predict

    def wait(self: ServedModel, requests: Any) -> Any:
        event.wait(20)
        return predict(self, requests)

    monkeypatch.setattr(ServedModel, "predict", wait)
    return event


def test_a_late_answer_is_not_waited_for(
    started: Started, dicom: bytes, held: threading.Event
) -> None:
    with started(seconds=0.3) as client:
        assert post(client, "/predict", dicom).status_code == 504
        held.set()
        assert client.get("/healthz").status_code == 200


def test_more_requests_than_the_limit_are_refused(
    started: Started, dicom: bytes, held: threading.Event
) -> None:
    with started(requests=2) as client, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(post, client, "/predict", dicom) for _ in range(2)]
        while "einthoven_open_requests 2.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        refused = post(client, "/predict", dicom)
        held.set()
        assert [each.result().status_code for each in waiting] == [200, 200]
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert post(client, "/predict", dicom).status_code == 200


def test_a_token_is_required_where_there_is_one(started: Started, dicom: bytes) -> None:
    token = "0123456789abcdef"
    with started(token=token) as client:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": token}):
            assert client.post("/predict", content=dicom, headers=header).status_code == 401
            assert client.get("/models", headers=header).status_code == 401
            assert client.get("/metrics", headers=header).status_code == 401
        right = {"Authorization": f"Bearer {token}"}
        assert client.post("/predict", content=dicom, headers=right).status_code == 200
        assert client.get("/healthz").status_code == client.get("/").status_code == 200


def test_no_traceback_leaves(
    started: Started, dicom: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ServedModel, requests: Any) -> Any:
        raise RuntimeError("a secret")

    monkeypatch.setattr(ServedModel, "predict", fail)
    with started() as client:
        answer = post(client, "/predict", dicom)
    assert answer.status_code == 500
    assert set(answer.json()) == {"problem", "remedy"}
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_pages_come_with_a_policy_that_forbids_other_sources(client: httpx.Client) -> None:
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_a_path_in_a_file_name_is_not_opened(client: httpx.Client) -> None:
    answer = client.post("/predict", files={"file": ("../../etc/passwd", b"0,1\n")})
    assert answer.status_code == 422
    assert answer.json()["problem"].startswith("passwd")


def test_a_client_that_leaves_harms_nobody(client: httpx.Client, dicom: bytes) -> None:
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(dicom)}\r\n\r\n".encode()
    for length in (0, 1000, len(dicom)):
        with socket.create_connection((host, port)) as sender:
            sender.sendall(head + dicom[:length])
    assert post(client, "/predict", dicom).status_code == 200
    while "einthoven_open_requests 0.0" not in client.get("/metrics").text:
        time.sleep(0.01)


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The bytes with some of them changed, removed, repeated or cut off."""
    data = bytearray(content)
    for _ in range(random.integers(1, 6)):
        place = int(
            random.integers(0, min(len(data), 4096) if random.random() < 0.7 else len(data))
        )
        kind = random.integers(0, 4)
        if kind == 0:
            data[place] = random.integers(0, 256)
        elif kind == 1:
            del data[place : place + int(random.integers(1, 64))]
        elif kind == 2:
            data[place:place] = data[place : place + int(random.integers(1, 64))]
        else:
            data[place : place + 4] = random.bytes(4)
    return bytes(data[: random.integers(1, len(data))] if random.random() < 0.1 else data)


def send_mutated(client: httpx.Client, files: dict[str, bytes], count: int, seed: int) -> list[int]:
    random, statuses = np.random.default_rng(seed), []
    for place in range(count):
        name = list(files)[place % len(files)]
        content = mutated(files[name], random)
        query = STATED if name.endswith("csv") else {}
        form = {"file": (name, content)}
        statuses.append(client.post("/predict", files=form, params=query).status_code)
    return statuses


def test_mutated_bodies_are_answered_or_refused(
    client: httpx.Client, dicom: bytes, csv: bytes
) -> None:
    files = {"a.dcm": dicom, "a.csv": csv[:40000]}
    assert set(send_mutated(client, files, 60, seed=1)) <= {200, 422}


@pytest.mark.slow
def test_many_mutated_bodies_leave_the_memory_flat(
    client: httpx.Client, dicom: bytes, csv: bytes, tmp_path: Path
) -> None:
    sources = [sound_edf, sound_ishne, sound_scp, sound_aecg, sound_muse, sound_philips]
    files = {"a.dcm": dicom, "a.csv": csv[:40000]}
    for place, source in enumerate(sources):
        file = source(tmp_path)
        files[f"{place}{file.suffix}"] = file.read_bytes()
    statuses = send_mutated(client, files, 2000, seed=2)  # lets caches and the allocator settle
    before = resident()
    statuses += send_mutated(client, files, 8000, seed=3)
    assert set(statuses) == {200, 422}
    assert resident() - before < 20_000_000


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_the_error_of_a_reader_is_a_refusal(
    client: httpx.Client, dicom: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RecordError("upload", "gain", 0, "must not be 0", remedy="correct it")

    monkeypatch.setattr("einthoven.serve.uploads.read_excerpt", refuse)
    answer = post(client, "/predict", dicom)
    assert answer.json() == {
        "problem": "upload: gain = 0: must not be 0",
        "remedy": "correct it",
    }
