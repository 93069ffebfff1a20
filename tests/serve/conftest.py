"""A server in a thread, with a small model on simulated ECGs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest

from einthoven.cohorts.synthetic import sample_record
from einthoven.models import Model
from einthoven.records import Record
from einthoven.records.csv_write import csv_content
from einthoven.records.dicom_write import dicom_content

if TYPE_CHECKING:
    import httpx
    from served import Started


@pytest.fixture(scope="session")
def model() -> Model:
    from served import small_model  # skips without the packages of the server

    return small_model()


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
        token: str = "", headers: Mapping[str, str] | None = None, **limits: Any
    ) -> AbstractContextManager[httpx.Client]:
        fields = {"workers": 2, "batch": 4, "seconds": 60.0} | limits
        app = create_app({"small": model}, limits=Limits(**fields), token=token)
        return running(app, headers or {})

    return start


@pytest.fixture(scope="session")
def client(started: Started) -> Iterator[httpx.Client]:
    with started() as client:
        yield client
