"""Verbs that train: demo, pretrain, posttrain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli.progress import console, shown_warnings, training
from einthoven.errors import CohortError
from einthoven.shipped import SHIPPED

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.experiment import Finished
    from einthoven.stages.corpus import Member
    from einthoven.stages.recipe import Pretraining
    from einthoven.training.processes import Processes

CohortPath = Annotated[
    Path, typer.Argument(metavar="COHORT", help="PTB-XL's folder, or a label table.")
]
StorePath = Annotated[
    Path | None, typer.Option(help="The packed cohort; made in the cache folder without it.")
]
Out = Annotated[
    Path, typer.Option(help="Run folder; an unfinished run of the same request goes on.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")]
Leads = Annotated[
    str | None, typer.Option(help="Leads of the input, such as I,II,V2; all twelve by default.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="Own table: a label column; all by default. Repeat it."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: stage2.drop_path=0.2"),
]


def demo(
    dest: Annotated[Path, typer.Argument(help="Folder for everything the demo makes.")] = Path(
        "demo"
    ),
    records: Annotated[int, typer.Option(min=200, help="Simulated ECGs.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all of it.")] = 0,
) -> None:
    """The whole job on simulated ECGs: pretrain, post-train, compare with plain fine-tuning.

    Ends by naming the report it wrote. A demo that was stopped goes on.
    """
    from einthoven.demo import run_demo

    with training() as (watcher, progress):
        page = run_demo(dest, records=records, seed=seed, watcher=watcher, progress=progress)
    typer.echo(f"Report: {page}")
    typer.echo(
        f"Next:   einthoven predict --bundle {dest}/post-training/bundle "
        f"{dest}/cohort/records100/00000/00001_lr.hea"
    )


def pretrain(
    out: Out,
    backbone: Annotated[str, typer.Option(help="A name of `einthoven backbones`.")],
    cohorts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="COHORT",
            help="PTB-XL's folder, a table, or a folder of ECG files; the recipe's without any.",
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="mae, release, ptbxl-100hz-cpu, or a .toml file.")
    ] = "release",
    weights: Annotated[
        list[float] | None,
        typer.Option(
            "--weight", help="A cohort's share of every epoch; by its records without. Repeat it."
        ),
    ] = None,
    stores: Annotated[
        list[Path] | None,
        typer.Option("--store", help="A packed cohort; in the cache without it. Repeat it."),
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COHORT[:TASK]",
            help="Another cohort whose test split must not be seen. Repeat it.",
        ),
    ] = None,
    allow_overlap: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A cohort whose test split may be seen. Repeat it."),
    ] = None,
    labels: Labels = None,
    overrides: Overrides = None,
    leads: Leads = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Pretrain a backbone on the training splits of cohorts, without labels.

    Refuses records and patients of the test splits of the cohorts themselves and of --protect.
    Leaves OUT/encoder.safetensors, which `posttrain --weights` reads. `einthoven report OUT` draws
    its losses.
    """
    from einthoven.cli.stores import every_record, shared_store
    from einthoven.stages.pretrain import pretrain as run
    from einthoven.stages.recipe import load_pretraining
    from einthoven.training.processes import Processes

    asked = load_pretraining(recipe, overrides or ())
    chosen, packed, mix = _mixture(asked, cohorts, stores, weights)
    together = Processes(device)
    _use_threads(threads)
    opened = [every_record(cohort, labels=labels) for cohort in chosen]
    own = [
        shared_store(cohort, store, together, labels=labels)
        for cohort, store in zip(chosen, packed, strict=True)
    ]
    known = dict(zip(chosen, own, strict=True))
    guarded = [_protected(text, known, together) for text in protect or ()]
    with training() as (watcher, _):
        done = run(
            opened,
            own,
            backbone,
            recipe=asked,
            out=out,
            mix=mix,
            protect=guarded,
            allow_overlap=allow_overlap or (),
            options=_options(leads),
            processes=together,
            watcher=watcher,
        )
    typer.echo(f"Encoder: {done.encoder}")


def _mixture(
    recipe: Pretraining,
    cohorts: Sequence[Path] | None,
    stores: Sequence[Path] | None,
    weights: Sequence[float] | None,
) -> tuple[list[Path], Sequence[Path | None], Sequence[float] | None]:
    """Cohorts, a store or none for each, and weights: of the command line, or of the recipe."""
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
    return list(cohorts), stores or [None] * len(cohorts), weights or None


def _protected(text: str, known: dict[Path, Any], together: Processes) -> Member:
    """A cohort whose test split is protected, and its store; `COHORT` or `COHORT:TASK`."""
    from einthoven.cli.stores import every_record, labelled, shared_store

    path, colon, task = text.rpartition(":")
    if not colon or Path(text).exists():
        path, task = text, ""
    cohort = labelled(path, task) if task else every_record(path)
    place = Path(path)
    return cohort, known[place] if place in known else shared_store(place, None, together)


def posttrain(
    cohort: CohortPath,
    out: Out,
    backbone: Annotated[
        str,
        typer.Option(help="A name of `einthoven backbones`, or the shipped encoder's."),
    ] = SHIPPED,
    weights: Annotated[
        Path | None, typer.Option(help="The pretrained backbone: a public checkpoint, or ours.")
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="PTB-XL: all-71, diagnostic-44, subclass-23, superclass-5, form-19, rhythm-12."
        ),
    ] = "all-71",
    recipe: Annotated[
        str, typer.Option(help="post-training, fine-tuning, linear-probe, scratch, or a .toml.")
    ] = "post-training",
    store: StorePath = None,
    labels: Labels = None,
    overrides: Overrides = None,
    min_records: Annotated[
        int, typer.Option(min=0, help="Leave out labels that fewer records carry.")
    ] = 0,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples.")] = 1000,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-overlap",
            help="Use an encoder that was pretrained on test records, and say so.",
        ),
    ] = False,
    leads: Leads = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Post-train a classifier: linear probe, then regularised fine-tuning; then its evidence.

    The test split is predicted once, after training. Leaves a bundle, predictions, metrics.json
    and report.html in OUT. Start it with torchrun for several processes.
    """
    from einthoven.cli.stores import labelled, shared_store
    from einthoven.experiment import run_experiment
    from einthoven.shipped import start_from
    from einthoven.stages.posttrain import check_weights
    from einthoven.stages.recipe import load_recipe
    from einthoven.training.processes import Processes

    asked = load_recipe(recipe, overrides or ())
    start = start_from(backbone, weights, random=asked.initialise == "random")
    check_weights(asked, start.weights)
    together = Processes(device)
    _use_threads(threads)
    chosen = labelled(cohort, task, labels=labels, min_records=min_records)
    packed = shared_store(cohort, store, together, labels=labels)
    with training() as (watcher, progress), shown_warnings():
        done = run_experiment(
            chosen,
            packed,
            start.backbone,
            recipe=asked,
            out=out,
            weights=start.weights,
            options={**start.options, **(_options(leads) or {})} or None,
            resamples=resamples,
            allow_overlap=allow_overlap,
            processes=together,
            watcher=watcher,
            progress=progress,
        )
    if done is not None:
        _tell(done, out, chosen)


def _tell(done: Finished, out: Path, cohort: Cohort) -> None:
    from einthoven.run_report import write_run_report

    page = write_run_report([out], out / "report.html", cohort=cohort)
    found = done.test
    typer.echo(f"Test macro AUROC {_with(found.macro_auroc, found.macro_auroc_interval)}")
    typer.echo(f"Test macro AUPRC {_with(found.macro_auprc, found.macro_auprc_interval)}")
    typer.echo(f"Bundle: {out / 'bundle'}")
    typer.echo(f"Report: {page}")


def _with(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")


def _options(leads: str | None) -> dict[str, Any] | None:
    from einthoven.records import canonical_lead

    return {"leads": tuple(map(canonical_lead, leads.split(",")))} if leads else None


def _use_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
        console.print(f"{threads} threads")
