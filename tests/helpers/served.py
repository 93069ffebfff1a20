"""A server in a thread, with a small model on simulated ECGs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from einthoven.backbones.classifier import create_classifier
from einthoven.files import Json
from einthoven.models import Model
from einthoven.predictions import Calibration

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

LABELS = ("AFIB", "NORM", "<b>RARE")
STATED = {"rate": "500", "unit": "mV"}
"""What the query states about the CSV of `csv`."""

Started = Callable[..., AbstractContextManager[httpx.Client]]


def small_model(
    name: str = "small", labels: tuple[str, ...] = LABELS, config: Json | None = None
) -> Model:
    classifier = create_classifier(
        "mtecg_tiny_100hz", labels=labels, seed=5, depth=1, width=32, heads=1
    )
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(3)
    calibration = Calibration(
        temperatures=(1.0, 1.0, 2.0), biases=(0.0, 0.1, 0.0), thresholds=(0.1, 0.9, 0.5)
    )
    return Model(
        classifier.eval().requires_grad_(False),
        preparation,
        calibration=None if config else calibration,
        config={
            "name": name,
            "digest": "0" * 64,
            "descriptions": {"AFIB": "atrial fibrillation"},
            **(config or {}),
        },
    )


@contextmanager
def running(app: Any, headers: Mapping[str, str]) -> Iterator[httpx.Client]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    address = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
