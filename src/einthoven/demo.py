"""The demo: the main job on simulated ECGs, in minutes on two cores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from einthoven.cohorts import open_cohort
from einthoven.cohorts.synthetic import synthesize
from einthoven.experiment.run import run_experiment
from einthoven.models import SHIPPED, start_from
from einthoven.progress import Progress
from einthoven.report import write_report
from einthoven.signals.pack import pack
from einthoven.signals.store import Store
from einthoven.stages.recipe import load_recipe, prepared_alike

ARMS = ("post-training", "fine-tuning")


def run_demo(
    dest: str | Path,
    *,
    records: int = 600,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Simulate a cohort, post-train the shipped encoder, fine-tune it plainly, compare, report.

    Parameters
    ----------
    dest : path
        Folder for everything; a demo that was stopped goes on.
    records : int
        Simulated ECGs.
    seed : int
        Seed of all of it.

    Returns
    -------
    Path
        The report.
    """
    folder = Path(dest)
    tell = progress or _silent
    if not (folder / "cohort").is_dir():
        synthesize(folder / "cohort", records=records, seed=seed, progress=progress)
    everyone = open_cohort(folder / "cohort", empty_rows="keep")
    store = pack(everyone, folder / "store", progress=tell)
    _run_arms(folder, store, [f"seed={seed}"], tell)
    return write_report(
        [folder / arm for arm in ARMS],
        folder / "report.html",
        reference=folder / "fine-tuning",
        cohort=everyone,
    )


def _run_arms(
    folder: Path,
    store: Store,
    overrides: list[str],
    progress: Progress,
) -> None:
    # Simulated hearts carry about a quarter of the 71 statements; the others are left out.
    cohort = open_cohort(folder / "cohort", "all-71", min_records=1)
    start = start_from(SHIPPED)
    for arm in ARMS:
        run_experiment(
            cohort,
            store,
            start.backbone,
            recipe=prepared_alike(load_recipe(f"demo/{arm}", overrides), centred=start.centred),
            out=folder / arm,
            weights=start.weights,
            options=start.options,
            progress=progress,
        )


def _silent(
    task: str, done: int, total: int, metrics: Mapping[str, float] | None = None, /
) -> None:
    """Report nothing."""
