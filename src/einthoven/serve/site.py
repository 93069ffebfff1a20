"""The page as static files: the model runs in the visitor's browser, and no ECG leaves it."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import EvaluationError, FileError
from einthoven.explain import METHODS
from einthoven.files import Json, check_output, write_json, write_text
from einthoven.models import export_onnx, load_model
from einthoven.models.model import Model
from einthoven.predictions.calibration import Calibration
from einthoven.records.csv_write import csv_content
from einthoven.serve.checks import checks_for
from einthoven.serve.description import ASSETS, description_of

RUNTIME = "onnxruntime-web"
VERSION = "1.30.0"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of the package's folder `dist`: 14 MB, which the wheel does not contain."""

_PAGE = "index.html"
_SERVER_ONLY = (_PAGE, "backend.js", "browser.js", "docs.html", "docs.js")
_METHOD = "occlusion-waves"
_STEPS = ("centre", "resample")  # of prepare.js
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'"
)


def write_site(path_or_name: str | Path, out: str | Path, *, runtime: Path | None = None) -> Path:
    """Write the page, the exported model and onnxruntime-web into a folder.

    Parameters
    ----------
    path_or_name : path or str
        A model, as for `load_model`.
    out : path
        The folder, new or empty. Any server of static files can serve it.
    runtime : path, optional
        Folder with `RUNTIME_FILES`. Default: they are fetched from npm, by the program `npm`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    EvaluationError
        If the browser cannot prepare signals as the model needs them, or the runtime is not found.
    FileError
        If the folder is not empty.
    ModelError
        As `export_onnx`.
    """
    folder = Path(out)
    check_output(folder, folder=True)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileError(f"{folder} is not empty", remedy="name a new folder")
    model = load_model(path_or_name)
    about = _description(model)
    (folder / "assets" / "ort").mkdir(parents=True)
    _add_runtime(folder / "assets" / "ort", runtime)
    export_onnx(path_or_name, out=folder / "model.onnx")
    write_json(folder / "model.json", about)
    (folder / "example.csv").write_bytes(csv_content(sample_record())[0])
    for file in ASSETS.iterdir():
        if file.name not in _SERVER_ONLY:
            shutil.copy(file, folder / "assets" / file.name)
    shutil.copy(ASSETS / "browser.js", folder / "assets" / "backend.js")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    page = (ASSETS / _PAGE).read_text(encoding="utf-8")
    write_text(folder / _PAGE, page.replace("<head>", f"<head>\n{policy}", 1))
    return folder / _PAGE


def _description(model: Model) -> Json:
    """What the page needs to know about the model, beside its graph."""
    preparation, calibration = model.preparation, model.calibration
    steps = preparation.before_window
    unknown = [
        str(step)
        for step in steps
        if step.name not in _STEPS or getattr(step, "method", "fourier") != "fourier"
    ]
    if unknown or preparation.sources != preparation.leads:
        raise EvaluationError(
            f"the page does not prepare signals as {model.name} needs them: "
            f"{'; '.join(unknown) or 'leads are computed'}",
            remedy="serve the model: einthoven serve MODEL",
        )
    units = dict(zip(model.labels, model.task.units(len(model.labels)), strict=True))
    has_thresholds = isinstance(calibration, Calibration)
    further: dict[str, Any] = {
        "steps_before": [step.to_dict() for step in steps],
        "window": preparation.window,
        "short": preparation.crop.short,
        "evaluation_crops": preparation.evaluation_crops,
        "passes_offsets": preparation.passes_offsets,
        "thresholds": list(calibration.thresholds) if has_thresholds else None,  # type: ignore[union-attr]
        "sets": None if model.sets is None else model.sets.to_dict(),
        "units": {name: unit for name, unit in units.items() if unit},
        "explanation": {"method": _METHOD, "summary": METHODS[_METHOD].summary},
        "checks": checks_for(preparation.rate),
    }
    return description_of(model.name, model) | further


def _add_runtime(folder: Path, runtime: Path | None) -> None:
    """Copy the files of onnxruntime-web from a folder, or fetch them from npm."""
    if runtime is not None:
        for name in RUNTIME_FILES:
            if not (runtime / name).is_file():
                raise EvaluationError(
                    f"{runtime} has no {name}",
                    remedy=f"name the folder dist of the npm package {RUNTIME}",
                )
            shutil.copy(runtime / name, folder / name)
        return
    npm, package = shutil.which("npm"), f"{RUNTIME}@{VERSION}"
    remedy = f"name the folder dist of the npm package {package}: --runtime FOLDER"
    if npm is None:
        raise EvaluationError(f"npm, which fetches {package}, is not installed", remedy=remedy)
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", package, "--silent", "--pack-destination", temporary]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not archives:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise EvaluationError(f"npm cannot fetch {package}: {reason}", remedy=remedy)
        with tarfile.open(archives[0]) as archive:
            for name in RUNTIME_FILES:
                content = archive.extractfile(f"package/dist/{name}")
                assert content is not None
                (folder / name).write_bytes(content.read())
