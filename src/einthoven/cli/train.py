"""Verbs that train: demo, pretrain, posttrain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli.progress import console, training

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.experiment import Finished

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
    cohort: CohortPath,
    out: Out,
    backbone: Annotated[str, typer.Option(help="A name of `einthoven backbones`.")],
    recipe: Annotated[
        str, typer.Option(help="mae, release, ptbxl-100hz-cpu, or a .toml file.")
    ] = "release",
    store: StorePath = None,
    labels: Labels = None,
    overrides: Overrides = None,
    leads: Leads = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Pretrain a backbone on the training split, without labels.

    Leaves OUT/encoder.safetensors, which `posttrain --weights` reads.
    """
    from einthoven.cli.stores import every_record, shared_store
    from einthoven.stages.pretrain import pretrain as run
    from einthoven.stages.recipe import load_pretraining
    from einthoven.training.processes import Processes

    asked = load_pretraining(recipe, overrides or ())
    together = Processes(device)
    _use_threads(threads)
    packed = shared_store(cohort, store, together, labels=labels)
    with training() as (watcher, _):
        done = run(
            every_record(cohort, labels=labels),
            packed,
            backbone,
            recipe=asked,
            out=out,
            options=_options(leads),
            processes=together,
            watcher=watcher,
        )
    typer.echo(f"Encoder: {done.encoder}")


def posttrain(
    cohort: CohortPath,
    out: Out,
    backbone: Annotated[str, typer.Option(help="A name of `einthoven backbones`.")],
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
    from einthoven.stages.posttrain import check_weights
    from einthoven.stages.recipe import load_recipe
    from einthoven.training.processes import Processes

    asked = load_recipe(recipe, overrides or ())
    check_weights(asked, weights)
    together = Processes(device)
    _use_threads(threads)
    chosen = labelled(cohort, task, labels=labels, min_records=min_records)
    packed = shared_store(cohort, store, together, labels=labels)
    with training() as (watcher, progress):
        done = run_experiment(
            chosen,
            packed,
            backbone,
            recipe=asked,
            out=out,
            weights=weights,
            options=_options(leads),
            resamples=resamples,
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
