"""Command that hands a model on: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from einthoven.cli.options import ModelArgument, one_of, output_file
from einthoven.cli.progress import echo, note
from einthoven.models import SHIPPED


def export(
    out: Annotated[
        Path, typer.Option(callback=output_file, help="The file to write, such as model.onnx.")
    ],
    model: ModelArgument = Path(SHIPPED),
    to: Annotated[str, one_of("onnx", help="The form of the file.")] = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Matrix products in 8 bits: a smaller file, and other probabilities."
        ),
    ] = False,
) -> None:
    """Export a model to one file that predicts without PyTorch.

    The ONNX file holds the network, the calibration and the end of the preparation, and describes
    itself: labels, leads, rate, thresholds, licence. `einthoven predict --model FILE.onnx` uses it,
    and so does any program with onnxruntime. Needs the extra `onnx`.

    Its probabilities are compared with PyTorch's before anything is written, not so with --int8.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.models import export_onnx

    folder = model_folder(model)
    note(f"Exporting {model} to {to}")
    file = export_onnx(folder, out=out, int8=int8)
    echo(f"Model: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    note(f"Predict with it: einthoven predict ECG --model {file}")
