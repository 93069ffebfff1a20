"""Every pitfall, measured one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from einthoven.bundle import load_bundle
from einthoven.errors import ReproduceError
from einthoven.reproduce.pitfalls.choices import joined_windows, thresholds, trapezoid
from einthoven.reproduce.pitfalls.features import KERNELS, window_features
from einthoven.reproduce.pitfalls.labels import empty_rows, likelihood, versions
from einthoven.reproduce.pitfalls.leaks import out_of_fold, record_leak, window_leak
from einthoven.reproduce.pitfalls.material import Material, answers, cohort_for
from einthoven.reproduce.pitfalls.scoring import Finding
from einthoven.reproduce.pitfalls.selection import best_of
from einthoven.reproduce.pitfalls.standardiser import standardiser
from einthoven.reproduce.pitfalls.undefined import undefined
from einthoven.shipped import SHIPPED, is_bundle
from einthoven.signals.store import Store

Progress = Callable[[str, int, int], None]


def measure(
    material: Material, *, kernels: int = KERNELS, progress: Progress | None = None
) -> list[Finding]:
    """Measure them all.

    Parameters
    ----------
    material : Material
    kernels : int
        Random kernels of the features, for each of five dilations.
    progress : callable, optional
        `(what, done, total)`.

    Returns
    -------
    list of Finding
        In the order of the page.
    """
    rows = material.store.rows(material.cohort.ids())
    features = window_features(
        material.store,
        rows,
        kernels=kernels,
        seed=material.seed,
        progress=counted(progress, "random convolutions"),
    )
    steps: list[Callable[[], Finding]] = [
        lambda: likelihood(material, out_of_fold(material, features)),
        lambda: empty_rows(material),
        lambda: versions(material),
        lambda: undefined(material),
        lambda: record_leak(material, features),
        lambda: window_leak(material, features),
        lambda: joined_windows(material),
        lambda: best_of(material, features),
        lambda: standardiser(material),
        lambda: thresholds(material),
        lambda: trapezoid(material),
    ]
    told = counted(progress, "pitfalls")
    found = []
    for step in steps:
        found.append(step())
        if told:
            told(len(found), len(steps))
    return found


def counted(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """The progress of one thing."""
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)


def gather(
    cohort: str | Path,
    store: Store,
    *,
    model: str | Path = SHIPPED,
    device: str = "cpu",
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Material:
    """PTB-XL, and what a finished model says of folds 9 and 10.

    Parameters
    ----------
    cohort : path
        PTB-XL's folder.
    store : Store
        Its packed signals.
    model : path or str
        A run folder or a bundle of the task all-71; by default the one that comes with einthoven.
    device : str
    resamples, seed : int
        Of the bootstraps.
    progress : callable, optional
        `(what, done, total)`.

    Raises
    ------
    ReproduceError
        When there is no such model, or it has other labels.
    """
    bundle = load_bundle(_bundle_of(model))
    chosen = cohort_for(cohort, store, bundle)
    validation, test = (
        answers(
            bundle,
            chosen,
            store,
            split,
            device=device,
            progress=counted(progress, f"predict {split}"),
        )
        for split in ("validation", "test")
    )
    name = f"`{Path(model).name}`"
    return Material(
        chosen, store, bundle, name, validation, test, device=device, resamples=resamples, seed=seed
    )


def _bundle_of(model: str | Path) -> str | Path:
    inside = Path(model) / "bundle"
    if is_bundle(inside):
        return inside
    if is_bundle(model):
        return model
    raise ReproduceError(
        f"{model} is neither a finished run nor a bundle",
        remedy=f"name the folder of a run of the task all-71, or none: {SHIPPED}",
    )
