"""The command `pretrain`: self-supervised pretraining on cohorts without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli.options import (
    Device,
    Labels,
    Leads,
    Options,
    Out,
    Overrides,
    Sidecar,
    Threads,
    Track,
    backbone_options,
    use_threads,
)
from einthoven.cli.progress import echo, note, progress_bars
from einthoven.errors import BackboneError, CohortError

if TYPE_CHECKING:
    from einthoven.stages.pretraining_data import PackedCohort
    from einthoven.stages.recipe import Pretraining
    from einthoven.training.distributed import Processes

RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="One of `einthoven recipes`, or a .toml file. Default: the backbone's own, else "
        "release.",
        show_default=False,
    ),
]
CohortPaths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="COHORT",
        help="Data set, table, or folder of ECG files. Default: the recipe's cohorts.",
    ),
]
Shares = Annotated[
    list[float] | None,
    typer.Option(
        "--share",
        help="Relative share of a cohort in an epoch. Default: by number of records. Repeatable.",
    ),
]
StorePaths = Annotated[
    list[Path] | None,
    typer.Option("--store", help="A packed cohort. Default: in the cache folder. Repeatable."),
]
Protect = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COHORT[:TASK]",
        help="Another cohort whose test split pretraining must not see. Repeatable.",
    ),
]
AllowLeakage = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A cohort whose test split pretraining may see. Repeatable."),
]


def pretrain(
    out: Out,
    backbone: Annotated[str, typer.Option(help="A name of `einthoven backbones`.")],
    cohorts: CohortPaths = None,
    recipe: RecipeName = None,
    shares: Shares = None,
    stores: StorePaths = None,
    sidecar: Sidecar = None,
    protect: Protect = None,
    allow_leakage: AllowLeakage = None,
    labels: Labels = None,
    overrides: Overrides = None,
    options: Options = None,
    leads: Leads = None,
    track: Track = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Pretrain a backbone on the training splits of cohorts, without labels.

    Records and patients of the cohorts' test splits, and of those of --protect, are refused. OUT
    receives a model folder, which `posttrain --weights OUT/model` reads; `einthoven report OUT`
    draws the losses.
    """
    from einthoven.backbones.registry import entry, leads_of
    from einthoven.cli.paths import refuse_inside
    from einthoven.stages.pretrain import pretrain
    from einthoven.stages.recipe import load_pretraining
    from einthoven.training.distributed import Processes
    from einthoven.training.tracking import tracked

    name = recipe or entry(backbone).pretraining_recipe
    settings = load_pretraining(name, overrides or (), backbone=backbone)
    network = backbone_options(backbone, options, leads=leads)
    paths, packed, shares = _mixture(settings, cohorts, stores, shares)
    for path in (*paths, *(path for path, _ in map(_protected, protect or ()))):
        refuse_inside(out, path)
    _check_recipe(settings, backbone, network)
    processes = Processes(device)
    use_threads(threads)
    if recipe is None:
        note(f"Recipe {settings.name}: {settings.description}")
    if settings.extends:
        note(f"Keys that {name} leaves out: recipe {settings.extends}")
    members, protected = _open(
        paths, packed, protect or (), labels, processes, leads_of(backbone, network)
    )
    tracker = track if processes.is_main else None
    with progress_bars() as bars, tracked(tracker, out, bars) as progress:
        result = pretrain(
            [cohort for cohort, _ in members],
            [store for _, store in members],
            backbone,
            recipe=settings,
            out=out,
            shares=shares,
            protect=protected,
            allow_leakage=allow_leakage or (),
            options=network,
            processes=processes,
            progress=progress,
        )
    echo(f"Model: {result.encoder}")


def _mixture(
    recipe: Pretraining,
    cohorts: Sequence[Path] | None,
    stores: Sequence[Path] | None,
    shares: list[float] | None,
) -> tuple[list[Path], Sequence[Path | None], list[float] | None]:
    """Cohorts, stores and shares, from the command line or from the recipe."""
    from einthoven.stages.pretraining_data import check_shares

    if not cohorts and not recipe.cohorts:
        raise CohortError(
            "no cohort to pretrain on", remedy="name a cohort, or add [[cohorts]] to the recipe"
        )
    if not cohorts and (stores or shares):
        raise CohortError(
            "--store and --share need a cohort", remedy="set them in the recipe's [[cohorts]]"
        )
    if not cohorts:
        sources = recipe.cohorts
        folders = [Path(source.store) if source.store else None for source in sources]
        shares = [source.share for source in sources if source.share is not None]
        return [Path(source.path) for source in sources], folders, shares or None
    if stores and len(stores) != len(cohorts):
        raise CohortError(
            f"{len(stores)} stores for {len(cohorts)} cohorts",
            remedy="repeat --store for each cohort, in their order, or leave it out",
        )
    if shares:
        check_shares(shares, len(cohorts))  # before anything is packed
    return list(cohorts), stores or [None] * len(cohorts), shares or None


def _check_recipe(recipe: Pretraining, backbone: str, options: Mapping[str, Any]) -> None:
    """Refuse a recipe that does not suit the backbone, and list those that do."""
    from einthoven.stages.pretrain import check_pretraining, suitable_recipes

    try:
        check_pretraining(recipe, backbone, options)
    except BackboneError as error:
        names = suitable_recipes(backbone, options)
        raise BackboneError(
            f"recipe {recipe.name} does not suit {backbone}: {error.problem} "
            f"(objective {recipe.objective})",
            remedy=f"choose --recipe {' or '.join(names)}" if names else error.remedy,
        ) from error


def _open(
    paths: Sequence[Path],
    stores: Sequence[Path | None],
    protect: Sequence[str],
    labels: Sequence[str] | None,
    processes: Processes,
    leads: Sequence[str],
) -> tuple[list[PackedCohort], list[PackedCohort]]:
    """Open cohorts and protected cohorts; pack them after all of them could be opened."""
    from einthoven.cli.paths import full_cohort, labelled_cohort, shared_store

    columns = {path: labels if path.is_file() else None for path in paths}
    cohorts = [full_cohort(path, labels=columns[path], warn=True) for path in paths]
    guarded = [_protected(text) for text in protect]
    others = [labelled_cohort(path, task) if task else full_cohort(path) for path, task in guarded]
    packed = {
        path: shared_store(path, store, processes, labels=columns[path], leads=leads)
        for path, store in zip(paths, stores, strict=True)
    }
    members = [(cohort, packed[path]) for cohort, path in zip(cohorts, paths, strict=True)]
    for path, _ in guarded:
        if path not in packed:
            packed[path] = shared_store(path, None, processes, leads=leads)
    return members, [
        (cohort, packed[path]) for cohort, (path, _) in zip(others, guarded, strict=True)
    ]


def _protected(text: str) -> tuple[Path, str | None]:
    """Path and task of a protected cohort: `COHORT` or `COHORT:TASK`."""
    path, colon, task = text.rpartition(":")
    return (Path(path), task) if colon and not Path(text).exists() else (Path(text), None)
