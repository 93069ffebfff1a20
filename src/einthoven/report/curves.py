"""How runs learn: validation metrics and training loss by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from einthoven.report.svg import drawing, to_svg

History = Sequence[Mapping[str, Any]]

PANELS = {
    "macro_auroc": "Validation macro AUROC",
    "macro_auprc": "Validation macro AUPRC",
    "train_loss": "Training loss",
}
# Okabe and Ito's colours: told apart with any colour vision, on light and on dark.
COLOURS = ("#2a7fb8", "#d1602a", "#1f9e77", "#c773a8", "#c9930a", "#8b6fc0")
STYLES = ("-", "--", "-.", ":")


def validation_curves(
    histories: Mapping[str, History], *, reference: str | None = None, name: str = "curves"
) -> str:
    """Three panels, as SVG: macro AUROC, macro AUPRC and training loss for every epoch.

    A dot marks each run's best epoch by validation macro AUROC, the earliest on a tie; a thin
    line is the reference's best value. (Figure 3 of arXiv 2509.12991.)

    Parameters
    ----------
    histories : mapping of str to sequence of mapping
        Lines of `metrics.jsonl` by the name of the run. What a line lacks is not drawn.
    reference : str, optional
        The run whose best value the others are held against.
    name : str
        Put before the ids in the SVG; give each figure of a page its own.
    """
    what = "Validation macro AUROC, macro AUPRC and training loss"
    return panel_curves(histories, PANELS, what=what, reference=reference, name=name)


def panel_curves(
    histories: Mapping[str, History],
    panels: Mapping[str, str],
    *,
    what: str,
    reference: str | None = None,
    name: str = "curves",
) -> str:
    """A panel for each number of an epoch, as SVG.

    Parameters
    ----------
    histories : mapping of str to sequence of mapping
        Lines of `metrics.jsonl` by the name of the run.
    panels : mapping of str to str
        Key in a line to the panel's title.
    what : str
        The same in words, for those who do not see the figure.
    reference, name : str
        As in `validation_curves`.
    """
    with drawing():
        figure = Figure(figsize=(10.2, 3.4))
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (key, title) in zip(places, panels.items(), strict=True):
            _draw_panel(axes, histories, key, reference)
            axes.set_title(title, fontsize=8.5, loc="left")
        figure.subplots_adjust(left=0.05, right=0.99, top=0.9, bottom=0.24, wspace=0.2)
        _explain(figure, histories)
        alt = f"{what} by epoch, of {', '.join(histories)}"
        return to_svg(figure, name=name, alt=alt)


def best_line(history: History) -> Mapping[str, Any] | None:
    """The line of the epoch with the highest validation macro AUROC, the earliest on a tie."""
    scored = [line for line in history if line.get("macro_auroc") is not None]
    return max(scored, key=lambda line: float(line["macro_auroc"]), default=None)


def _draw_panel(
    axes: Axes, histories: Mapping[str, History], key: str, reference: str | None
) -> None:
    for (run, history), (colour, style) in zip(histories.items(), _looks(), strict=False):
        lines = [line for line in history if line.get(key) is not None]
        epochs = [line["epoch"] for line in lines]
        marker = "." if len(lines) == 1 else ""
        values = [line[key] for line in lines]
        axes.plot(epochs, values, color=colour, ls=style, lw=1.3, marker=marker)
        best = best_line(lines)
        if best is not None:
            _mark(axes, best["epoch"], best[key], colour)
        if best is not None and run == reference and key != "train_loss":
            axes.axhline(best[key], color=colour, lw=0.7, alpha=0.8)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(color="#a3a9b0", alpha=0.3, lw=0.5)


def _mark(axes: Axes, epoch: int, value: float, colour: str) -> None:
    axes.plot([epoch], [value], marker="o", ms=5.5, mfc=colour, mec="white", mew=0.9, ls="")


def _explain(figure: Figure, histories: Mapping[str, History]) -> None:
    handles = [
        Line2D([], [], color=colour, ls=style, lw=1.5)
        for _, (colour, style) in zip(histories, _looks(), strict=False)
    ]
    figure.legend(
        handles, list(histories), loc="lower center", ncols=4, frameon=False, fontsize=8.5
    )


def _looks() -> Iterable[tuple[str, str]]:
    return ((colour, style) for style in cycle(STYLES) for colour in COLOURS)
