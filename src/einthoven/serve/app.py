"""The HTTP application: its addresses, and what they return."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from einthoven import __version__
from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import EinthovenError, EvaluationError
from einthoven.files import Json
from einthoven.records.csv_write import csv_content
from einthoven.serve.description import ASSETS
from einthoven.serve.gate import Gate, Metrics, refusal_json
from einthoven.serve.limits import Limits, RequestError
from einthoven.serve.models import (
    EmbedRequest,
    ExplainRequest,
    PredictRequest,
    ServedModel,
    Similar,
)
from einthoven.serve.uploads import Upload, files_of, received
from einthoven.serve.workers import Fork, Here, Work, Workers

if TYPE_CHECKING:
    from einthoven.inference.runtimes import AnyModel

_SCHEMA: Json = {
    "type": "object",
    "properties": {"problem": {"type": "string"}, "remedy": {"type": "string"}},
}
_STATUSES = {
    400: "The form cannot be parsed, or has no file or several",
    401: "The bearer token is missing or wrong",
    404: "No such model",
    408: "The body was not complete in time",
    413: "The body is too large",
    422: "The ECG or a parameter is refused",
    503: "Too many open requests",
    504: "No answer in time",
}
REFUSALS: dict[int | str, Json] = {
    status: {"description": text, "content": {"application/json": {"schema": _SCHEMA}}}
    for status, text in _STATUSES.items()
}
_FILE: Json = {"type": "string", "format": "binary"}
BODY: Json = {
    "requestBody": {
        "required": True,
        "description": "An ECG file of any readable format, as the body itself or in a form; "
        "the files of a WFDB record in a form.",
        "content": {
            "application/octet-stream": {"schema": _FILE},
            "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _FILE}}},
        },
    }
}


def create_app(
    models: Mapping[str, AnyModel],
    *,
    limits: Limits | None = None,
    token: str = "",
    device: str = "cpu",
    processes: bool = False,
    similar: Similar | None = None,
) -> FastAPI:
    """The application that serves models.

    Parameters
    ----------
    models : mapping of str to Model or OnnxModel
        By the name that requests use; the first one is the default.
    limits : Limits, optional
    token : str, optional
        Bearer token that requests have to send.
    device : str
        As `einthoven.inference.device_of` gives it.
    processes : bool
        Whether every worker computes in a process, forked from this one when the application
        starts (Linux, on the CPU), and not in a thread of this one.
    similar : Similar, optional
        Records among which explanations by the first model name similar ones.

    Raises
    ------
    EvaluationError
        If there are no models.
    ModelError
        If one is an encoder without a head.
    """
    if not models:
        raise EvaluationError("no model to serve", remedy="name a model folder")
    limits = limits or Limits()
    metrics = Metrics()
    served = {
        name: ServedModel(
            name,
            model,
            device=device,
            most=limits.batch,
            similar=None if place else similar,
        )
        for place, (name, model) in enumerate(models.items())
    }

    def runner() -> Fork | Here:
        works = [work for model in served.values() for work in model.works]
        return Fork(works, limits.seconds) if processes else Here()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.workers = Workers(limits.workers, metrics.batch.observe, runner)
        yield
        await asyncio.to_thread(app.state.workers.close)

    app = FastAPI(
        title="einthoven",
        version=__version__,
        summary="Predictions of ECGs by post-trained foundation models. Not a medical device.",
        docs_url=None,  # FastAPI's page loads its scripts from a CDN
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.served, app.state.limits, app.state.metrics = served, limits, metrics
    _add_answers(app)
    _add_pages(app)
    paths = tuple(path for route in app.routes if (path := getattr(route, "path", "")))
    app.add_middleware(Gate, limits=limits, metrics=metrics, token=token, paths=paths)
    app.add_exception_handler(EinthovenError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_such_address)
    return app


# ------------------------------------------------------------------ requests


async def _upload(
    request: Request,
    rate: Annotated[
        float | None, Query(description="Hz; only for CSV, NumPy, MATLAB and HDF5 files.")
    ] = None,
    unit: Annotated[
        str | None, Query(description="Unit of such files: mV, uV, V or the size of one count.")
    ] = None,
    leads: Annotated[
        str | None, Query(description="Leads of such files, separated by commas.")
    ] = None,
) -> Upload:
    """The ECG of a request, with what its query states about it."""
    headers = request.headers
    body = await received(
        request.stream(), headers.get("content-length", ""), request.app.state.limits.body
    )
    files = files_of(body, headers.get("content-type", ""), headers.get("content-disposition", ""))
    (name, content), *signals = files.items()
    names = None if leads is None else tuple(lead.strip() for lead in leads.split(","))
    return Upload(content, name, dict(signals), rate, unit, names)


def _model(
    request: Request,
    model: Annotated[str | None, Query(description="A name of /models; the first one.")] = None,
) -> ServedModel:
    served: dict[str, ServedModel] = request.app.state.served
    if model is not None and model not in served:
        raise RequestError(
            404, f"no model {model!r}", remedy=f"name one of {', '.join(served)}, or none"
        )
    return served[model or next(iter(served))]


Uploaded = Annotated[Upload, Depends(_upload)]
Chosen = Annotated[ServedModel, Depends(_model)]


def _add_answers(app: FastAPI) -> None:
    """What models answer to an ECG."""

    async def answer(work: Work, item: Any, most: int = 1) -> Response:
        result = app.state.workers.submit(work, item, most=most)
        return _json(await asyncio.wrap_future(result))

    post: dict[str, Any] = {"responses": REFUSALS, "openapi_extra": BODY, "tags": ["ECGs"]}

    @app.post("/predict", summary="Predict an ECG", **post)
    async def predict(
        model: Chosen,
        upload: Uploaded,
        signal: Annotated[bool, Query(description="Add the first minute of the signal.")] = False,
    ) -> Response:
        """Probabilities, calls and findings, as `einthoven predict --json` prints them.

        Also the model's name and digest, and the file's SHA-256.
        """
        return await answer(model.predict, PredictRequest(upload, signal), model.batch)

    @app.post("/explain", summary="Explain the prediction of a label", **post)
    async def explain(
        model: Chosen,
        upload: Uploaded,
        label: Annotated[str, Query(description="Label, class or number of the model.")],
        method: Annotated[str, Query(description="As in `einthoven explain`.")] = "",
    ) -> Response:
        """What every 10 ms of every lead contributes to the label, and where most of it lies.

        With `--cohort`, also the most similar records of the cohort and their labels.
        """
        return await answer(model.explain, ExplainRequest(upload, label, method))

    @app.post("/embed", summary="Embed an ECG", **post)
    async def embed(
        model: Chosen,
        upload: Uploaded,
        level: Annotated[str, Query(description="pooled, token or lead.")] = "pooled",
    ) -> Response:
        """The features of the model's backbone, as `einthoven embed` writes them."""
        return await answer(model.embed, EmbedRequest(upload, level))


def _add_pages(app: FastAPI) -> None:
    """What the server says about itself, and its page."""
    served: dict[str, ServedModel] = app.state.served
    content, _ = csv_content(sample_record())

    @app.get("/models", summary="Models of this server", tags=["Server"])
    async def models() -> Response:
        """Labels, leads, preparation and licence of each; the first one is the default."""
        return _json({"models": [model.describe() for model in served.values()]})

    @app.get("/healthz", summary="Whether the server answers", tags=["Server"])
    async def healthz() -> Response:
        return _json({"status": "ok", "version": __version__})

    @app.get("/metrics", summary="Counters in Prometheus' form", tags=["Server"])
    async def metrics() -> Response:
        return Response(generate_latest(app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/example.csv", summary="A simulated ECG (500 Hz, mV)", tags=["Server"])
    async def example() -> Response:
        return Response(content, media_type="text/csv")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(ASSETS / "docs.html")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(ASSETS / "index.html")

    app.mount("/assets", StaticFiles(directory=ASSETS), name="assets")


# ------------------------------------------------------------------ answers


def _json(content: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, EinthovenError)
    status = error.status if isinstance(error, RequestError) else 422
    headers = error.headers if isinstance(error, RequestError) else {}
    if status == 413:
        headers = headers | {"Connection": "close"}  # the rest of the body is not received
    return _json(refusal_json(error.problem, error.remedy), status, headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    name = str(fault["loc"][-1])
    problem = f"{name}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
    return _json(refusal_json(problem, "see /docs for the parameters"), 422)


async def _no_such_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = refusal_json(str(error.detail).lower(), "see /docs for the addresses")
    return _json(body, error.status_code, error.headers)
