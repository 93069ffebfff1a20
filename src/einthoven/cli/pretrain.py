"""The verb that pretrains."""

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
    Threads,
    backbone_options,
    use_threads,
)
from einthoven.cli.progress import console, shown_warnings, training
from einthoven.errors import BackboneError, CohortError

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.stages.pretraining_data import Member
    from einthoven.stages.recipe import Pretraining
    from einthoven.training.distributed import Processes

# The folder is listed here because importing stages.recipe would slow every verb down.
RECIPES = sorted(
    file.stem
    for file in (Path(__file__).parents[1] / "stages" / "recipes" / "pretraining").glob("*.toml")
)

Recipe = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(RECIPES)}, or a .toml file; without it release, and where there are no "
        "patches to hide, as in S4, a recipe of the backbone's own.",
        show_default=False,
    ),
]
Cohorts = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="COHORT",
        help="PTB-XL's folder, a table, or a folder of ECG files; the recipe's without any.",
    ),
]
Weights = Annotated[
    list[float] | None,
    typer.Option(
        "--weight", help="A cohort's share of every epoch; by its records without. Repeat it."
    ),
]
Stores = Annotated[
    list[Path] | None,
    typer.Option("--store", help="A packed cohort; in the cache without it. Repeat it."),
]
Protect = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COHORT[:TASK]",
        help="Another cohort whose test split must not be seen. Repeat it.",
    ),
]
AllowOverlap = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A cohort whose test split may be seen. Repeat it."),
]


def pretrain(
    out: Out,
    backbone: Annotated[str, typer.Option(help="A name of `einthoven backbones`.")],
    cohorts: Cohorts = None,
    recipe: Recipe = None,
    weights: Weights = None,
    stores: Stores = None,
    protect: Protect = None,
    allow_overlap: AllowOverlap = None,
    labels: Labels = None,
    overrides: Overrides = None,
    options: Options = None,
    leads: Leads = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Pretrain a backbone on the training splits of cohorts, without labels.

    Refuses records and patients of the test splits of the cohorts themselves and of --protect.
    Leaves OUT/model, which `posttrain --weights` reads. `einthoven report OUT` draws
    its losses.
    """
    from einthoven.stages.pretrain import pretrain as run
    from einthoven.stages.recipe import load_pretraining
    from einthoven.stages.suited import default_pretraining
    from einthoven.training.distributed import Processes

    asked = load_pretraining(recipe or default_pretraining(backbone), overrides or ())
    network = backbone_options(backbone, options, leads=leads)
    chosen, places, mix = _mixture(asked, cohorts, stores, weights)
    _check(asked, backbone, network)
    together = Processes(device)
    use_threads(threads)
    if recipe is None and together.is_main:
        said = f"Recipe {asked.name}: {asked.description}"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    opened = _opened(chosen, labels)
    fenced = [_protected(text) for text in protect or ()]
    members = _packed(chosen, opened, places, labels, together)
    known = dict(zip(chosen, members, strict=True))
    guarded = [_guarded(place, cohort, known, together) for place, cohort in fenced]
    with training() as progress, shown_warnings():
        done = run(
            [cohort for cohort, _ in members],
            [store for _, store in members],
            backbone,
            recipe=asked,
            out=out,
            mix=mix,
            protect=guarded,
            allow_overlap=allow_overlap or (),
            options=network,
            processes=together,
            progress=progress,
        )
    typer.echo(f"Encoder: {done.encoder}")


def _mixture(
    recipe: Pretraining,
    cohorts: Sequence[Path] | None,
    stores: Sequence[Path] | None,
    weights: Sequence[float] | None,
) -> tuple[list[Path], Sequence[Path | None], Sequence[float] | None]:
    """Cohorts, a store or none for each, and weights: of the command line, or of the recipe."""
    from einthoven.stages.pretraining_data import check_weights

    if not cohorts and not recipe.cohorts:
        raise CohortError(
            "nothing to pretrain on", remedy="name a cohort, or [[cohorts]] in the recipe"
        )
    if not cohorts and (stores or weights):
        raise CohortError(
            "--store and --weight without a cohort", remedy="set them in the recipe's [[cohorts]]"
        )
    if not cohorts:
        shares = recipe.cohorts
        named = [Path(share.store) if share.store else None for share in shares]
        mix = [share.weight for share in shares if share.weight is not None]
        return [Path(share.path) for share in shares], named, mix or None
    if stores and len(stores) != len(cohorts):
        raise CohortError(
            f"{len(stores)} stores for {len(cohorts)} cohorts",
            remedy="repeat --store for each cohort, in their order, or leave it out",
        )
    if weights:
        check_weights(weights, len(cohorts))  # the corpus would, but only once they are packed
    return list(cohorts), stores or [None] * len(cohorts), weights or None


def _check(recipe: Pretraining, backbone: str, options: Mapping[str, Any]) -> None:
    """Refuse a recipe that does not suit the backbone, naming those that do."""
    from einthoven.stages.suited import check_pretraining, suggestions

    try:
        check_pretraining(recipe, backbone, options)
    except BackboneError as error:
        raise BackboneError(
            f"recipe {recipe.name} does not suit {backbone}: {error.problem} "
            f"(objective {recipe.objective})",
            remedy=suggestions(error, backbone, options),
        ) from error


def _opened(cohorts: Sequence[Path], labels: Sequence[str] | None) -> list[Cohort]:
    """Every record of the cohorts; nothing is packed."""
    from einthoven.cli.stores import every_record

    return [every_record(cohort, labels=labels) for cohort in cohorts]


def _packed(
    cohorts: Sequence[Path],
    opened: Sequence[Cohort],
    stores: Sequence[Path | None],
    labels: Sequence[str] | None,
    together: Processes,
) -> list[Member]:
    """The cohorts and their stores, packed where they are not yet."""
    from einthoven.cli.stores import shared_store

    packed = [
        shared_store(cohort, store, together, labels=labels)
        for cohort, store in zip(cohorts, stores, strict=True)
    ]
    return list(zip(opened, packed, strict=True))


def _protected(text: str) -> tuple[Path, Cohort]:
    """A cohort whose test split is protected, and where it is; `COHORT` or `COHORT:TASK`."""
    from einthoven.cli.stores import every_record, labelled

    path, colon, task = text.rpartition(":")
    if not colon or Path(text).exists():
        path, task = text, ""
    return Path(path), labelled(path, task) if task else every_record(path)


def _guarded(
    place: Path, cohort: Cohort, known: Mapping[Path, Member], together: Processes
) -> Member:
    """A protected cohort and its store, packed where it is not yet."""
    from einthoven.cli.stores import shared_store

    return cohort, known[place][1] if place in known else shared_store(place, None, together)
