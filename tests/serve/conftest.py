"""A server in a thread, with a small model on simulated ECGs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from einthoven.cohorts.synthetic import sample_record
from einthoven.models import Model, OnnxModel, save_model
from einthoven.records import Record
from einthoven.records.csv_write import csv_content
from einthoven.records.dicom_write import dicom_content

if TYPE_CHECKING:
    import httpx
    from served import Started

    from einthoven.inference.runtimes import AnyModel
    from einthoven.serve import Similar


@pytest.fixture(scope="session")
def model() -> Model:
    from served import small_model  # skips without the packages of the server

    return small_model()


@pytest.fixture(scope="session")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a folder."""
    return save_model(model, tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="session")
def exported(model: Model) -> OnnxModel:
    """An exported model, with a mean of each record in place of a graph: an export takes long."""

    def run(names: list[str], feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float64]]:
        means = np.abs(feed["ecg"]).mean((1, 2), dtype=np.float64)
        return [1 / (1 + means[:, None] * np.arange(1, 4))]

    outputs = [SimpleNamespace(name="probabilities"), SimpleNamespace(name="uncalibrated")]
    return OnnxModel(
        session=SimpleNamespace(run=run, get_outputs=lambda: outputs),
        preparation=model.preparation,
        calibration=model.calibration,
        sets=None,
        config=model.config
        | {"backbone": "mtecg_tiny_100hz", "id2label": dict(zip("012", model.labels, strict=True))},
        zeros_for_missing=True,
    )


@pytest.fixture(scope="session")
def record() -> Record:
    return sample_record()


@pytest.fixture(scope="session")
def dicom(record: Record) -> bytes:
    return dicom_content(record)[0]


@pytest.fixture(scope="session")
def csv(record: Record) -> bytes:
    return csv_content(record)[0]


@pytest.fixture(scope="session")
def started(model: Model) -> Started:
    """Start a server: `with started(body=1000, token=...) as client`."""
    from served import running

    from einthoven.serve import Limits, create_app

    def start(
        token: str = "",
        headers: Mapping[str, str] | None = None,
        models: Mapping[str, AnyModel] | None = None,
        processes: bool = False,
        similar: Similar | None = None,
        **limits: Any,
    ) -> AbstractContextManager[httpx.Client]:
        fields = {"workers": 2, "batch": 4, "seconds": 60.0} | limits
        named = models or {"small": model}
        app = create_app(
            named, limits=Limits(**fields), token=token, processes=processes, similar=similar
        )
        return running(app, headers or {})

    return start


@pytest.fixture(scope="session")
def client(started: Started) -> Iterator[httpx.Client]:
    with started() as client:
        yield client
