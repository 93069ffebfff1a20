"""Commands that put a model on a web page: serve, site."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.explain import CohortOption, EmbeddingsOption, gallery_of, labels_of
from einthoven.cli.options import Device, ModelArgument, Runtime, StorePath, output_folder
from einthoven.cli.progress import echo, note
from einthoven.errors import EvaluationError
from einthoven.models import SHIPPED

if TYPE_CHECKING:
    from einthoven.inference.runtimes import AnyModel
    from einthoven.serve import Similar

TOKEN = "EINTHOVEN_TOKEN"
_LOCAL = ("127.0.0.1", "::1", "localhost")
_SHORTEST = 16  # characters of a token


def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL...]",
            help="Model folders, or .onnx files of `einthoven export`; the first one is the "
            "default of requests.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with a bearer token. Default: the variable {TOKEN}, if set."),
    ] = None,
    max_body: Annotated[float, typer.Option(min=0.001, help="Largest upload, in MB.")] = 20,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest time of a request, in s.")] = 30,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Open requests with an ECG; further ones are refused.")
    ] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that predict. Default: one a core.")
    ] = None,
    device: Device = "auto",
    runtime: Runtime = "auto",
    cohort: CohortOption = None,
    embeddings: EmbeddingsOption = None,
    store: StorePath = None,
) -> None:
    """Serve models over HTTP, with a web page. Not a medical device.

    Open http://127.0.0.1:8000 in a browser: drop an ECG file, see the recording, the probabilities,
    and why. Programs send an ECG in any format:

        einthoven serve RUN/model

        curl --data-binary @ecg.dcm http://127.0.0.1:8000/predict

        curl -F file=@ecg.csv 'http://127.0.0.1:8000/predict?rate=500&unit=mV'

    The answer is that of `einthoven predict --json`. /explain?label=AFIB and /embed take an ECG as
    well; /docs lists all addresses. Uploads stay in memory and are forgotten with their answer.

    With --cohort, explanations by the first model name the most similar records of the cohort, and
    their labels: whoever reaches the server sees their ids.

    Other machines reach the server only with --host. Set a token then, and put a proxy with TLS in
    front of it: see docs/serve.md. SIGTERM and Ctrl-C end it when open requests are answered.
    Needs the extra `serve`.
    """
    _check_packages()
    from einthoven.cli.paths import model_to_predict
    from einthoven.models import OnnxModel, open_model
    from einthoven.serve import Limits
    from einthoven.serve import serve as run

    if cohort is None and (embeddings or store):
        raise EvaluationError(
            "--embeddings and --store belong to a cohort", remedy="name it: --cohort COHORT"
        )
    token = _token(token_file)
    limits = Limits(
        body=round(max_body * 1e6),
        seconds=float(timeout),
        requests=max_requests,
        **({"workers": workers} if workers else {}),
    )
    paths = [model_to_predict(path, runtime) for path in models or [Path(SHIPPED)]]
    loaded = [open_model(path, threads=1) for path in paths]
    if not all(isinstance(model, OnnxModel) for model in loaded):
        from einthoven.backbones.inference import device_of

        device = device_of(device)
    elif device == "auto":
        device = "cpu"
    if host not in _LOCAL and not token:
        note(
            f"Warning: whoever reaches port {port} can use the server; set {TOKEN}", style="yellow"
        )

    def started() -> None:
        echo(f"einthoven at http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)")

    run(
        _named(paths, loaded),
        host=host,
        port=port,
        limits=limits,
        token=token,
        device=device,
        similar=_similar(loaded[0], cohort, embeddings, store) if cohort else None,
        started=started,
    )


def _similar(model: AnyModel, source: Path, embeddings: Path | None, store: Path | None) -> Similar:
    """The records of a cohort, by their embeddings and with their labels."""
    from einthoven.models import OnnxModel
    from einthoven.serve import Similar

    if isinstance(model, OnnxModel):
        raise EvaluationError(
            f"{model.name} is an exported model, which does not embed",
            remedy="serve the model folder, or leave out --cohort",
        )
    cohort, gallery = gallery_of(model, source, embeddings, store)
    rows = dict(zip(cohort.ids().tolist(), range(len(cohort)), strict=True))
    return Similar(gallery, [labels_of(cohort, rows[record]) for record in gallery.records])


def _check_packages() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise EvaluationError(
            f"{error.name}, which the server needs, is not installed",
            remedy="pip install 'einthoven[serve]'",
        ) from error


def _token(file: Path | None) -> str:
    """The token in a file, or in the environment; empty without one."""
    if file is None:
        place, token = TOKEN, os.environ.get(TOKEN, "").strip()
        if not token:
            return ""
    else:
        try:
            place, token = str(file), file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(
                f"{file}: the token cannot be read: {error}", remedy="name a file with a token"
            ) from error
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise EvaluationError(
            f"the token in {place} is not {_SHORTEST} printable ASCII characters or more",
            remedy="generate one: openssl rand -hex 32",
        )
    return token


def _named(paths: list[Path], models: list[AnyModel]) -> dict[str, AnyModel]:
    """Models by their names, or by their paths where two have one name."""
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise EvaluationError("a model is named more than once", remedy="name every model once")
    return dict(zip(names, models, strict=True))


def site(
    model: ModelArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", callback=output_folder, help="Folder to write; new or empty."
        ),
    ],
    runtime: Annotated[
        Path | None,
        typer.Option(
            help="Folder `dist` of the npm package onnxruntime-web. Default: npm fetches it."
        ),
    ] = None,
) -> None:
    """Write a web page that predicts in the visitor's browser: no ECG leaves it.

    OUT holds the page, the model as ONNX, and onnxruntime-web (14 MB, fetched by npm), and needs no
    other server. Any server of static files will do:

        einthoven site RUN/model page

        python -m http.server --directory page

    The browser reads CSV, WFDB and DICOM of up to a minute, checks the recording, predicts, and
    explains by occlusion. Other formats, recordings without some leads and other methods are left
    to `einthoven serve`. Needs the extra `onnx`.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.serve import write_site

    page = write_site(model_folder(model), out, runtime=runtime)
    echo(f"Page: {page}")
    note(f"Look at it: python -m http.server --directory {out}")
