"""How values, gaps and commands are written in tables."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

from einthoven.evaluate.comparison import Comparison, Difference
from einthoven.report.format import interval, minutes, number, with_interval
from einthoven.reproduce.evidence import Evidence, Gap, Group, Metric, Model, Pooled
from einthoven.reproduce.folders import Request, State, digest_of
from einthoven.reproduce.grid import Cell, cells_of, only
from einthoven.reproduce.published import Value

NOT_RUN = "not run yet"
METRIC_NAMES: dict[Metric, str] = {"auroc": "macro AUROC", "auprc": "macro AUPRC"}


def value(found: Pooled | None) -> str:
    """`0.9107 ± 0.0012 (0.9026 to 0.9187)`: mean, spread over seeds, interval of the mean."""
    if found is None:
        return NOT_RUN
    return f"{number(found.mean, places=4)}{_spread(found)}{limits(found.interval)}"


def gain(found: Pooled | None) -> str:
    """The same with signs, for differences."""
    if found is None:
        return NOT_RUN
    mean = number(found.mean, signed=True, places=4)
    return f"{mean}{_spread(found)}{limits(found.interval, sign=True)}"


def gap(found: Gap | None) -> str:
    """`+0.0201 (+0.0113 to +0.0290)`: of two models, each a mean over its own seeds."""
    if found is None:
        return NOT_RUN
    return with_interval(found.mean, found.interval, signed=True, places=4)


def limits(span: tuple[float, float] | None, *, sign: bool = False) -> str:
    """` (0.9026 to 0.9187)`, or nothing."""
    return f" ({interval(span, signed=sign, places=4)})" if span else ""


def _spread(found: Pooled) -> str:
    return "" if found.spread is None else f" ± {number(found.spread, places=4)}"


def published(found: Value | None) -> str:
    """A published value with its interval, or with the leaderboard's uncertainty: `0.925(08)`."""
    if found is None:
        return "–"
    if found.thousandths is not None:
        return f"{found.value:.3f}({found.thousandths:02d})"
    return with_interval(found.value, found.interval)


def counts(found: Comparison | None, metric: Metric) -> str:
    """Labels with a higher value / with an interval above zero / below zero."""
    if found is None:
        return NOT_RUN
    difference: Difference = getattr(found, metric)
    if difference.significantly_better is None:
        return str(difference.improved)
    better, worse = difference.significantly_better, difference.significantly_worse
    return f"{difference.improved} / {better} / {worse}"


def seeds(evidence: Evidence, model: Model, kept: Pooled | None = None) -> str:
    """`0, 1, 2`, or `0 (1 of 3)` while others are missing; those of kept values where given."""
    done = kept.seeds if kept else evidence.finished(model)
    asked = evidence.asked(model)
    if not done:
        return "–"
    named = ", ".join(map(str, done))
    return named if len(done) >= len(asked) else f"{named} ({len(done)} of {len(asked)})"


def command(request: Request, what: str, *more: str, exact: bool = False) -> str:
    """The command that makes a table or figure.

    Paths are as one would type them in the working folder. Those that lie elsewhere are nobody
    else's business: on a page, capitals stand for them, unless `exact` ones are asked for.
    """
    experiment = request.experiment.asked
    if experiment.endswith(".toml"):
        experiment = _shown(Path(experiment), "EXPERIMENT.toml", exact=exact)
    options = [
        ("cohort", _shown(request.cohort, "COHORT", exact=exact)),
        ("store", _shown(request.store, "STORE", exact=exact)),
        ("backbone", request.backbone),
        ("weights", _encoder(request, exact=exact)),
        ("experiment", experiment),
        ("out", _shown(request.out, "OUT", exact=exact)),
        *(("against", _shown(each, "RUN", exact=exact)) for each in request.against),
    ]
    named = [word for name, value in options if value for word in (f"--{name}", value)]
    return shlex.join(["einthoven", "reproduce", what, *named, *more])


def _encoder(request: Request, *, exact: bool) -> str:
    """The pretrained encoder of a command; that which the runs recorded where nobody named one."""
    if request.weights is not None:
        return _shown(request.weights, "ENCODER", exact=exact)
    recorded = list(request.unnamed_weights().values())
    if not recorded:
        return ""
    return _shown(recorded[0], "ENCODER", exact=exact) if len(recorded) == 1 else "ENCODER"


def _shown(path: Path, capitals: str, *, exact: bool) -> str:
    try:
        return os.fspath(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path.resolve()) if exact else capitals


def progress(evidence: Evidence, what: str, groups: Sequence[Model]) -> str:
    """What is missing and the one command that runs it; nothing when all is there."""
    cells = list(dict.fromkeys(cell for group in groups for cell in evidence.cells(group)))
    states = [evidence.state(cell) for cell in cells]
    missing = len(states) - states.count(State.DONE)
    if not missing:
        return ""
    # What somebody has to look at; how far the others are is over by the time a page is read.
    counts = {state: states.count(state) for state in (State.FAILED, State.OTHER)}
    listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    other = (
        "Those of state `other` lie in folders that hold runs of another request, on another "
        "cohort, with another recipe or other weights: name what they were run with, or another "
        "--out."
    )
    filters, runs = narrowed(evidence.request, what, cells)
    more = f" among the {runs} runs of its whole grid" if runs > len(cells) else ""
    return paragraph(
        f"{missing} of {len(cells)} runs are not finished{f' ({listed})' if listed else ''}.",
        other if counts[State.OTHER] else "",
        f"This runs them{more}, and goes on where they stopped; capitals stand for your own paths:",
    ) + (f"\n\n    {command(evidence.request, what, *filters)}\n")


def narrowed(request: Request, what: str, cells: Sequence[Cell]) -> tuple[list[str], int]:
    """Options that leave just these cells of a command's, and how many runs it has with them.

    No options, and more runs than cells, where filters cannot tell them from the others.
    """
    whole = cells_of(what, request.experiment, request.backbone)
    filters = []
    for key in Cell.__dataclass_fields__:
        mine, all_of_them = ([getattr(cell, key) for cell in each] for each in (cells, whole))
        if set(mine) < set(all_of_them):
            values = (
                each if isinstance(each, str) else f"{each:g}" for each in dict.fromkeys(mine)
            )
            filters.append(f"{key}={','.join(values)}")
    if set(only(whole, filters)) != set(cells):
        return [], len(whole)
    return [word for each in filters for word in ("--only", each)], len(cells)


def footing(evidence: Evidence, groups: Sequence[Model], split: str = "test") -> str:
    """On what records, with which intervals."""
    fold = {"test": "fold 10", "validation": "fold 9"}[split]
    resamples = evidence.request.experiment.resamples
    said = (
        f"{split.capitalize()} split ({fold} of PTB-XL); in brackets 95 % percentile intervals of "
        f"{resamples:,} record resamples (seed 0)."
    )
    if any(len(evidence.finished(group)) > 1 for group in groups):
        said += (
            " With several seeds: the mean, ± the standard deviation over seeds, and the interval "
            "of the mean; that interval is about other records, not about other seeds."
        )
    return said


def recipes(evidence: Evidence, groups: Sequence[Group]) -> str:
    """What each arm is, in numbers, and where weights come from: a Markdown list."""
    lines: dict[str, str] = {}
    for group in groups:
        recipe = evidence.request.recipe(evidence.cells(group)[0])
        facts = [recipe.description.rstrip(".")]
        if recipe.stage1:
            facts.append(f"probe: {recipe.stage1.epochs} epochs")
        if recipe.stage2:
            facts.append(
                f"fine-tuning: {recipe.stage2.epochs} epochs, batch {recipe.stage2.batch_size}, "
                f"base rate {recipe.stage2.base_lr:g} per 256 records, stochastic depth "
                f"{recipe.stage2.drop_path:g}, dropout {recipe.stage2.dropout:g}"
            )
        lines.setdefault(group.arm, f"* `{group.arm}`: {'; '.join(facts)}.")
    return "\n".join([*lines.values(), f"* Weights: {_weights(evidence.request)}."])


def _weights(request: Request) -> str:
    if request.weights:
        return f"`{request.weights.name}`, SHA-256 {digest_of(request.weights)[:12]}"
    if recorded := request.unnamed_weights():
        listed = " and ".join(f"`{p.name}`, SHA-256 {sha[:12]}" for sha, p in recorded.items())
        if len(recorded) > 1:
            return f"not known, for the runs recorded {listed}; name one of them with `--weights`"
        return f"{listed}, as the runs recorded it; name it with `--weights` to run more"
    recipe = request.experiment.pretraining_recipe(request.backbone, 0)
    return (
        f"pretrained on folds 1 to 8 without labels (`{recipe.objective}`, {recipe.epochs} epochs, "
        f"batch {recipe.batch_size})"
    )


def mean_minutes(evidence: Evidence, group: Group) -> str:
    """Mean minutes of a run, shared work counted in each."""
    spent = evidence.seconds(group)
    return "–" if spent is None else minutes(spent)


def paragraph(*parts: str) -> str:
    """Sentences, in lines of at most 100 characters."""
    text = " ".join(" ".join(parts).split()).replace(" %", "\0%")  # never a line of its own
    filled = textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ")
