"""Verbs that train a classifier: demo, posttrain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.options import (
    Device,
    Labels,
    Leads,
    Options,
    Out,
    Overrides,
    Resamples,
    StorePath,
    Threads,
    backbone_options,
    use_threads,
)
from einthoven.cli.progress import console, shown_warnings, training
from einthoven.models import SHIPPED
from einthoven.report.format import with_interval

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.experiment.run import Finished

Labelled = Annotated[
    Path, typer.Argument(metavar="COHORT", help="PTB-XL's folder, or a label table.")
]
Backbone = Annotated[
    str, typer.Option(help="A name of `einthoven backbones`, or the shipped encoder's.")
]
Weights = Annotated[
    Path | None, typer.Option(help="The pretrained backbone: a public checkpoint, or ours.")
]
Task = Annotated[
    str | None,
    typer.Option(
        help="PTB-XL: all-71, diagnostic-44, subclass-23, superclass-5, form-19 or rhythm-12; "
        "all-71 without it."
    ),
]
AllowOverlap = Annotated[
    bool,
    typer.Option(
        "--allow-overlap",
        help="Train although the encoder has seen test records, or recordings are in two splits, "
        "and say so.",
    ),
]


def demo(
    dest: Annotated[Path, typer.Argument(help="Folder for everything the demo makes.")] = Path(
        "demo"
    ),
    records: Annotated[int, typer.Option(min=200, help="Simulated ECGs.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all of it.")] = 0,
) -> None:
    """The whole job on simulated ECGs: post-train, fine-tune plainly, compare.

    It starts from the encoder that comes with einthoven, and ends by naming the report it wrote. A
    demo that was stopped goes on.
    """
    from einthoven.demo import run_demo

    with training() as progress:
        page = run_demo(dest, records=records, seed=seed, progress=progress)
    typer.echo(f"Report: {page}")
    typer.echo(
        f"Next:   einthoven predict --model {dest}/post-training/model "
        f"{dest}/cohort/records100/00000/00001_lr.hea"
    )


def posttrain(
    cohort: Labelled,
    out: Out,
    backbone: Backbone = SHIPPED,
    weights: Weights = None,
    task: Task = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="post-training, fine-tuning, linear-probe, scratch, each with the settings of "
            "the backbone; a network's own, such as strodthoff; or a .toml. Without it "
            "post-training, and the own one of a network that was made for the task.",
            show_default=False,
        ),
    ] = None,
    store: StorePath = None,
    labels: Labels = None,
    overrides: Overrides = None,
    min_records: Annotated[
        int, typer.Option(min=0, help="Leave out labels that fewer records carry.")
    ] = 0,
    resamples: Resamples = 1000,
    allow_overlap: AllowOverlap = False,
    options: Options = None,
    leads: Leads = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Post-train a classifier: linear probe, then regularised fine-tuning; then its evidence.

    The test split is predicted once, after training. Leaves a bundle, predictions, metrics.json
    and report.html in OUT. Start it with torchrun for several processes.
    """
    from einthoven.cli.stores import check_typed, labelled, shared_store
    from einthoven.experiment.run import run_experiment
    from einthoven.models import start_from
    from einthoven.stages.posttrain import check_weights
    from einthoven.stages.recipe import load_recipe, prepared_alike
    from einthoven.stages.suited import recipe_for
    from einthoven.training.distributed import Processes

    check_typed(cohort, task=task, labels=labels)
    name = recipe_for(start_from(backbone, random=True).backbone, recipe)
    asked = load_recipe(name, overrides or ())
    start = start_from(backbone, weights, random=asked.initialise == "random")
    taken = prepared_alike(asked, centred=start.centred)
    check_weights(asked, start.weights, start.backbone)
    network = backbone_options(start.backbone, options, leads=leads, beside=start.options)
    together = Processes(device)
    use_threads(threads)
    said = [f"Recipe {name}: {asked.description}"] if str(name) != recipe else []
    said += ["Leads' means are taken out, as of what it starts from"] if taken != asked else []
    for line in said if together.is_main else ():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    chosen = labelled(cohort, task, labels=labels, min_records=min_records)
    packed = shared_store(cohort, store, together, labels=labels)
    if together.is_main:
        _tell_unlearnable(chosen)
    with training() as progress, shown_warnings():
        done = run_experiment(
            chosen,
            packed,
            start.backbone,
            recipe=taken,
            out=out,
            weights=start.weights,
            options=network,
            resamples=resamples,
            allow_overlap=allow_overlap,
            processes=together,
            progress=progress,
        )
    if done is not None:
        tell(done, out, chosen, resamples=resamples)


def _tell_unlearnable(cohort: Cohort) -> None:
    positives = cohort.targets("train").sum(axis=0)
    without = [label for label, count in zip(cohort.labels, positives, strict=True) if not count]
    if without:
        console.print(
            f"{len(without)} of {len(cohort.labels)} labels have no positive training record, such "
            f"as {without[0]}: nothing can be learned of them, and they count in macro values "
            "wherever test has some",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def tell(done: Finished, out: Path, cohort: Cohort | None = None, *, resamples: int = 1000) -> None:
    """Write a finished run's report, and say what it came to and where things are."""
    from einthoven.report import write_report

    page = write_report([out], out / "report.html", cohort=cohort, resamples=resamples)
    found, labels = done.test, len(done.test.labels)
    if found.defined_labels < labels:
        typer.echo(
            f"Macro values are of {found.defined_labels} of {labels} labels: the others "
            "have no positives, or no negatives, in test"
        )
    for name in ("AUROC", "AUPRC"):
        value, limits = (getattr(found, f"macro_{name.lower()}{end}") for end in ("", "_interval"))
        typer.echo(f"Test macro {name} {with_interval(value, limits, places=4)}")
    if (out / "model").is_dir():
        typer.echo(f"Model: {out / 'model'}")
    typer.echo(f"Report: {page}")
