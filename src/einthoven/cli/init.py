"""The command `init`: a simulated sample cohort to start from, with commands and a notebook."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from einthoven.cli.options import output_folder
from einthoven.cli.progress import echo

FILES = Path(__file__).resolve().parent / "sample"


def init(
    dest: Annotated[
        Path,
        typer.Argument(
            callback=output_folder, metavar="DIR", help="Folder to write; must be new, or empty."
        ),
    ],
) -> None:
    """Write 40 SIMULATED ECGs with a table of labels, commands to run on them, and a notebook.

    A cohort of your own has the same form: ECG files, and a table with one row for each of them.
    """
    from einthoven.cohorts.synthetic import check_empty, write_sample

    check_empty(dest)
    dest.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, so that none is left if this is interrupted.
    with TemporaryDirectory(dir=dest.parent, prefix=f".{dest.name}-") as name:
        partial = Path(name)
        table = write_sample(partial).name
        for file in FILES.iterdir():
            shutil.copyfile(file, partial / file.name)
        dest.mkdir(exist_ok=True)
        for path in sorted(partial.iterdir()):
            path.rename(dest / path.name)
    echo(f"""40 SIMULATED ECGs, not of patients, in {dest}:
  {table}: path, patient, age, sex and the label AFIB of each
  commands.sh: from here to a model, a report and predictions, step by step
  notebook.ipynb: the same in Python
Next:
  cd {shlex.quote(str(dest))}
  einthoven doctor {table}
  einthoven posttrain {table} --folds 5 --out runs/first
  einthoven predict --model runs/first/model simulated-ecgs/0008.hea
or all of it: bash {shlex.quote(str(dest / "commands.sh"))}""")
