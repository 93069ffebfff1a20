"""The command: it listens, drains at SIGTERM, and refuses options that make no sense."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from einthoven.cli import main
from einthoven.models import Model, save_model

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_sigterm_lets_open_requests_finish(model: Model, dicom: bytes, tmp_path: Path) -> None:
    folder, port = save_model(model, tmp_path / "model"), free_port()
    command = [sys.executable, "-m", "einthoven", "serve", str(folder), "--port", str(port)]
    environment = os.environ | {"EINTHOVEN_TOKEN": "t" * 20}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        assert str(port) in process.stdout.readline()
        headers = {"Authorization": "Bearer " + "t" * 20}
        address = f"http://127.0.0.1:{port}"
        with (
            httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False) as client,
            ThreadPoolExecutor(8) as pool,
        ):
            assert client.get("/models").status_code == 200
            answers = [pool.submit(client.post, "/predict", content=dicom) for _ in range(8)]
            while "einthoven_open_requests 0.0" in client.get("/metrics").text:
                time.sleep(0.001)
            process.send_signal(signal.SIGTERM)
            statuses = []
            for answer in answers:
                try:
                    statuses.append(answer.result().status_code)
                except httpx.ConnectError:  # it was not connected yet
                    continue
        assert process.wait(30) == 0
        assert set(statuses) == {200}
        assert "Traceback" not in process.stdout.read()
    finally:
        process.kill()
        process.stdout.close()  # type: ignore[union-attr]
        process.wait()


@pytest.mark.parametrize("token", ["short", "with a blank in its middle", "ä" * 20])
def test_a_weak_token_is_refused(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(token, encoding="utf-8")
    for arguments in (["--token-file", str(tmp_path / "token")], []):
        monkeypatch.setenv("EINTHOVEN_TOKEN", token)
        with pytest.raises(SystemExit) as end:
            main(["serve", *arguments])
        assert end.value.code == 1


def test_a_model_is_named_once(model: Model, tmp_path: Path) -> None:
    folder = save_model(model, tmp_path / "model")
    with pytest.raises(SystemExit) as end:
        main(["serve", str(folder), str(folder)])
    assert end.value.code == 1
