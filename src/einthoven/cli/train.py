"""Commands that make a classifier: posttrain, search, ensemble."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.options import (
    Device,
    Kind,
    Labels,
    Leads,
    Options,
    Out,
    Overrides,
    Resamples,
    Sidecar,
    StorePath,
    Task,
    Threads,
    Track,
    Unit,
    backbone_options,
    output_folder,
    use_threads,
)
from einthoven.cli.progress import echo, note, progress_bars
from einthoven.files import METRICS_FILE, Json, read_json
from einthoven.models import SHIPPED
from einthoven.report.format import counted, number, with_interval

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.experiment.run import RunResult
    from einthoven.experiment.search import SearchResult


Labelled = Annotated[
    Path,
    typer.Argument(
        metavar="COHORT", help="Folder of a data set, a table, or a .toml list of these."
    ),
]
Backbone = Annotated[
    str, typer.Option(help=f"A name of `einthoven backbones`, or {SHIPPED} with its weights.")
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Pretrained weights: a public checkpoint, or a model folder."),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        help="post-training, fine-tuning, linear-probe or scratch, with the settings of the "
        "backbone; another of `einthoven recipes`; or a .toml file. Default: post-training, or the "
        "backbone's own recipe for supervised baselines.",
        show_default=False,
    ),
]
MinRecords = Annotated[int, typer.Option(min=0, help="Leave out labels that fewer records carry.")]
Folds = Annotated[
    int | None,
    typer.Option(
        min=3,
        help="Cross-validation, recommended below 2,000 records: every record is tested by a "
        "model that has not seen its patient, and the final model is trained on all records. A "
        "column fold that has as many is used; other splits of the cohort are not.",
        show_default=False,
    ),
]
AllowLeakage = Annotated[
    bool,
    typer.Option(
        "--allow-leakage",
        help="Train despite leakage: the encoder has seen test records, or a recording is in two "
        "splits. The results are marked.",
    ),
]


def posttrain(
    cohort: Labelled,
    out: Out,
    backbone: Backbone = SHIPPED,
    weights: Weights = None,
    task: Task = None,
    recipe: RecipeName = None,
    store: StorePath = None,
    sidecar: Sidecar = None,
    labels: Labels = None,
    kind: Kind = None,
    unit: Unit = None,
    overrides: Overrides = None,
    min_records: MinRecords = 0,
    folds: Folds = None,
    resamples: Resamples = 1000,
    allow_leakage: AllowLeakage = False,
    options: Options = None,
    leads: Leads = None,
    track: Track = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Post-train a network: linear probe, regularised fine-tuning, evaluation.

    It predicts labels of 0 and 1, or the target that --kind and --target state:

        einthoven posttrain ecgs.csv --kind regression --target lvef --unit % --out RUN

        einthoven posttrain ecgs.csv --target 'lvef <= 40' --out RUN

        einthoven posttrain ecgs.csv --kind multiclass --target rhythm --out RUN

    The test split is predicted once, after training. OUT receives a model folder, predictions,
    metrics.json and report.html; with --folds also folds/1 and so on, which are runs as well. For
    several processes, start it with torchrun.
    """
    from einthoven.backbones.registry import leads_of
    from einthoven.cli.paths import labelled_cohort, refuse_inside, shared_store, stated_task
    from einthoven.experiment.folds import run_folds
    from einthoven.experiment.posttrain import plan_training
    from einthoven.experiment.run import check_splits, run_experiment
    from einthoven.training.distributed import Processes
    from einthoven.training.tracking import tracked

    refuse_inside(out, cohort)
    plan = plan_training(backbone, weights, recipe, overrides or ())
    start, name, settings, is_adapted = plan
    network = backbone_options(start.backbone, options, leads=leads, defaults=start.options)
    processes = Processes(device)
    use_threads(threads)
    if str(name) != recipe:
        note(f"Recipe {name}: {settings.description}")
    if settings.extends:
        note(f"Keys that {name} leaves out: recipe {settings.extends}")
    if is_adapted:
        note("Subtracting the mean of each lead, as in the preparation of the initial weights")
    goal = stated_task(task, kind=kind, target=labels, unit=unit)
    labelled = labelled_cohort(cohort, goal, min_records=min_records)
    _report_targets(labelled)
    if folds is None:
        check_splits(labelled)
    needed = leads_of(start.backbone, network)
    packed = shared_store(cohort, store, processes, labels=(), leads=needed)
    usable = labelled.select(packed.without_quarantined(labelled.ids()))
    if folds is None:
        _recommend_folds(usable)
    elif usable.has_folds(folds):
        note("Folds: those of the column fold")
    _report_unlearnable(usable if folds is None else usable.with_splits("train"))
    run = run_experiment if folds is None else partial(run_folds, folds=folds)
    was_finished = (out / METRICS_FILE).is_file()
    tracker = track if processes.is_main else None
    with progress_bars() as bars, tracked(tracker, out, bars) as progress:
        result = run(
            labelled,
            packed,
            start.backbone,
            recipe=settings,
            out=out,
            weights=start.weights,
            options=network,
            resamples=resamples,
            allow_leakage=allow_leakage,
            processes=processes,
            progress=progress,
        )
    if was_finished:
        note(f"{out} was already finished: nothing was trained or predicted again")
    if result is not None:
        _report(result, out, labelled, resamples=resamples)


def search(
    cohort: Labelled,
    out: Annotated[Path, typer.Option(help="Folder of the search; repeated, it goes on there.")],
    trials: Annotated[int, typer.Option(min=1, help="Number of trials, earlier ones included.")],
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="KEY=VALUES",
            help="A recipe key and its values: LOW:HIGH, LOW:HIGH:log or VALUE,VALUE. Repeatable.",
        ),
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="TOML file with keys and their values, as in a recipe.")
    ] = None,
    backbone: Backbone = SHIPPED,
    weights: Weights = None,
    task: Task = None,
    recipe: RecipeName = None,
    store: StorePath = None,
    sidecar: Sidecar = None,
    labels: Labels = None,
    kind: Kind = None,
    unit: Unit = None,
    overrides: Overrides = None,
    min_records: MinRecords = 0,
    options: Options = None,
    leads: Leads = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Search values of recipe keys on validation records, and write the best recipe.

        einthoven search ecgs.csv --out tuned --trials 30 --key stage2.base_lr=1e-4:1e-2:log

        einthoven posttrain ecgs.csv --out runs/tuned --recipe tuned/best.toml

    Trials follow Optuna's TPE sampler (`pip install 'einthoven[search]'`), and end early when
    they are behind the median. They are measured on the validation split; with fewer than 2,000
    records of training and validation by five-fold cross-validation of these. The test split is
    not read. An interrupted search is resumed by the same command, and a larger number of trials
    continues a finished one.

    OUT receives best.toml, trials.csv, search.svg and the study, study.db.
    """
    from einthoven.backbones.registry import leads_of
    from einthoven.cli.paths import labelled_cohort, refuse_inside, shared_store, stated_task
    from einthoven.experiment.posttrain import plan_training
    from einthoven.experiment.search import Key, read_space
    from einthoven.experiment.search import search as run_search
    from einthoven.training.distributed import Processes

    refuse_inside(out, cohort)
    searched = [*(read_space(space) if space else ()), *map(Key.parse, keys or ())]
    start = plan_training(backbone, weights, recipe, overrides or ()).start
    network = backbone_options(start.backbone, options, leads=leads, defaults=start.options)
    processes = Processes(device)
    use_threads(threads)
    goal = stated_task(task, kind=kind, target=labels, unit=unit)
    labelled = labelled_cohort(cohort, goal, min_records=min_records)
    _report_targets(labelled)
    needed = leads_of(start.backbone, network)
    packed = shared_store(cohort, store, processes, labels=(), leads=needed)
    with progress_bars() as progress:
        result = run_search(
            labelled,
            packed,
            out,
            searched,
            trials=trials,
            backbone=backbone,
            weights=weights,
            recipe=recipe,
            overrides=overrides or (),
            options=network,
            processes=processes,
            progress=progress,
        )
    _print_search(result)


def _print_search(result: SearchResult) -> None:
    is_complete = result.trials["state"] == "complete"
    best = ", ".join(f"{key} = {value}" for key, value in result.best.items())
    echo(f"{counted(len(result.trials), 'trial')}, {int((~is_complete).sum())} of them ended early")
    echo(f"Best {result.criterion} of validation records: {result.value:.4f} with {best}")
    echo(f"Trials: {result.folder / 'trials.csv'} and search.svg")
    echo(f"Recipe: {result.folder / 'best.toml'} (einthoven posttrain --recipe)")


def ensemble(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Finished runs of `posttrain`.")
    ],
    out: Annotated[Path, typer.Option(callback=output_folder, help="Folder of the ensemble.")],
    resamples: Resamples = 1000,
) -> None:
    """Average finished runs: the unweighted mean of their probabilities, record by record.

    Members may differ in network, recipe and seed. They must have predicted the same records, task
    and labels, in the same order.

    Train the members first, for example networks of the PTB-XL benchmark:

        einthoven posttrain data/ptb-xl --backbone fcn_wang --recipe strodthoff --out runs/fcn

        einthoven posttrain data/ptb-xl --backbone lstm --recipe strodthoff-rnn --out runs/lstm

        einthoven ensemble runs/fcn runs/lstm --out runs/ensemble

    OUT receives predictions, metrics.json and report.html, and is a run folder for `report`,
    `compare` and `evaluate`:

        einthoven compare runs/ensemble runs/post-training

    It contains no model. To predict new ECGs, run `predict` with the model of each member.
    """
    from einthoven.experiment.ensembles import ensemble

    _report(ensemble(runs, out, resamples=resamples), out, resamples=resamples)


def _report_targets(cohort: Cohort) -> None:
    """Name the sides of a few labels, and what is not known."""
    import numpy as np

    from einthoven.cohorts.cohort import UNKNOWN_TARGET
    from einthoven.errors import SHOWN_NAMES, listed
    from einthoven.tasks import negatives, positives

    form, targets = cohort.target.behaviour.form, cohort.targets()
    if form == "labels" and len(cohort.labels) <= SHOWN_NAMES:
        sides = zip(cohort.labels, positives(targets), negatives(targets), strict=True)
        for label, yes, no in sides:
            note(f"{label}: {counted(int(yes), 'positive record')}, {int(no):,} negative")
    parts = []
    if left_out := cohort.left_out.get(UNKNOWN_TARGET):
        parts.append(f"{counted(left_out, 'record')} {UNKNOWN_TARGET} left out")
    unknown = np.isnan(targets).sum(axis=0)
    if form != "classes" and unknown.any():
        cells = [f"{x} {n:,}" for x, n in zip(cohort.labels, unknown, strict=True) if n]
        others = " of the others" * bool(parts)
        parts.append(f"{counted(int(unknown.sum()), 'target')}{others} not known: {listed(cells)}")
    if parts:
        note("; ".join(parts))


def _recommend_folds(cohort: Cohort) -> None:
    """Recommend --folds for a small cohort, and name labels with few positives in a split."""
    from einthoven.cohorts.cohort import SMALL
    from einthoven.errors import listed
    from einthoven.evaluate.estimate import MIN_PER_CLASS

    if len(cohort) >= SMALL:
        return
    records = counted(len(cohort), "record")
    note(f"{records}: --folds 5 tests every one of them, and trains the final model on all")
    if cohort.target.behaviour.form == "values":
        return
    counts, splits = cohort.counts(), ("test", "validation")
    positives = sorted((int(counts[s][x]), x, s) for x in cohort.labels for s in splits)
    if scarce := [
        f"{x}: {counted(n, 'positive')} in {s}" for n, x, s in positives if n < MIN_PER_CLASS
    ]:
        note(f"Warning: {listed(scarce, separator='; ')}: use --folds 5", style="yellow")


def _report_unlearnable(cohort: Cohort) -> None:
    from einthoven.errors import listed

    counts = cohort.counts()["train"]
    labels = counts.index[counts == 0].tolist()
    if labels:
        note(
            f"No positive training record: {len(labels)} of {counted(len(cohort.labels), 'label')} "
            f"({listed(labels)}). They cannot be learned, but count in macro averages if the test "
            "split has positives."
        )


def _report(
    result: RunResult, out: Path, cohort: Cohort | None = None, *, resamples: int = 1000
) -> None:
    """Write a finished run's report, and print its results and files."""
    from einthoven.report.measures import measured
    from einthoven.report.page import write_report

    page = write_report([out], out / "report.html", cohort=cohort, resamples=resamples)
    score, folds = result.test.to_dict(), read_json(result.run.path / METRICS_FILE).get("folds")
    for item in measured(score):
        echo(f"{'Out-of-fold' if folds else 'Test'} {item.name} {item.text()}")
        if folds and (summary := folds.get(item.key)) is not None:
            mean, sd = (number(summary[key]) for key in ("mean", "sd"))
            echo(f"  by fold: {mean} in the mean, standard deviation {sd}")
    if "macro_auroc" in score:
        _print_areas(score, folds)
    if (out / "model").is_dir():
        echo(f"Model: {out / 'model'}")
    echo(f"Report: {page}")


def _print_areas(score: Json, folds: Json | None) -> None:
    """Print AUROC and AUPRC of labels, or of classes against the others."""
    noun = "classes, each against the others" if "measures" in score else "labels"
    count, macro, labels = len(score["per_label"]), "", ""
    if count > 1:
        macro, labels = "macro ", f", {score['defined_labels']} of {count} {noun}"
    for name in ("AUROC", "AUPRC"):
        value, limits, reason, bias = (
            score[f"macro_{name.lower()}{part}"]
            for part in ("", "_interval", "_interval_reason", "_bias")
        )
        text = with_interval(value, limits, places=4) + (f" ({reason})" if reason else "")
        echo(f"{'Out-of-fold' if folds else 'Test'} {macro}{name} {text}{labels}")
        if limits:
            echo(f"  estimated bias {number(bias, signed=True, places=4)}")
        if folds:
            mean, sd = (number(folds[f"macro_{name.lower()}"][k], places=4) for k in ("mean", "sd"))
            echo(f"  by fold: {mean} in the mean, standard deviation {sd}")
