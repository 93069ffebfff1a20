"""Mean predictions of table 1's ensembles, kept as run folders that `compare` and `report` read."""

from __future__ import annotations

import re
import shutil
from hashlib import sha256
from pathlib import Path

from einthoven.errors import ReproduceError
from einthoven.experiment.ensembles import ENSEMBLE, ensemble
from einthoven.experiment.run import METRICS, PREDICTIONS
from einthoven.files import read_json
from einthoven.reproduce.claims import claim
from einthoven.reproduce.evidence import Evidence, Folders
from einthoven.reproduce.folders import Request, digest_of
from einthoven.reproduce.grid import rows_of
from einthoven.reproduce.standings import model_of
from einthoven.training.run import ABOUT

MEANS = "ensembles"


def save_means(evidence: Evidence) -> list[Path]:
    """Save the mean of every row of several networks, for every task and seed that all have
    finished, and let the evidence read the row from there.

    What is there already is left alone, as long as its members' predictions are the same; what
    another process is saving is left to it.

    Returns
    -------
    list of Path
        Folders as `einthoven ensemble` leaves them, saved now or before.

    Raises
    ------
    EvaluationError
        When members do not belong together, or one comes twice.
    ReproduceError
        When such a folder holds a run that is no ensemble.
    """
    request = evidence.request
    saved = []
    for row in [each for each in rows_of(request.experiment) if len(each.members) > 1]:
        for task in request.experiment.tasks:
            for seed, runs in evidence.folders(model_of(evidence, row, task)).items():
                folder = mean_folder(request, row.name, task, seed)
                with claim(request.claims, folder.name) as mine:
                    if mine is None:
                        continue
                    _save(runs, folder, resamples=request.experiment.resamples)
                evidence.means[runs] = (folder,)
                saved.append(folder)
    return saved


def mean_folder(request: Request, row: str, task: str, seed: int) -> Path:
    """Where a row's mean predictions are: `OUT/ensembles/ROW--TASK--seedN`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", row)
    if name != row:  # two rows may read alike as folders
        name += "-" + sha256(row.encode()).hexdigest()[:6]
    return request.out / MEANS / f"{name}--{task}--seed{seed}"


def _save(runs: Folders, folder: Path, *, resamples: int) -> None:
    if (folder / ABOUT).is_file():
        asked = read_json(folder / ABOUT)["request"]
        if asked.get("stage") != ENSEMBLE:
            raise ReproduceError(
                f"{folder} holds a run that is no ensemble", remedy="move it to another folder"
            )
        members = [member["predictions"] for member in asked["members"]]
        if members != [_digests(run) for run in runs]:
            shutil.rmtree(folder)  # the mean of runs that were run again since
        elif (folder / METRICS).is_file():
            return
    ensemble(runs, folder, resamples=resamples)


def _digests(run: Path) -> dict[str, str]:
    tables = {split: run / PREDICTIONS / f"{split}.parquet" for split in ("validation", "test")}
    return {split: digest_of(file) for split, file in tables.items()}
