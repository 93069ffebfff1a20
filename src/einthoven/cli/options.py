"""Options that several verbs share, and what `--option`, `--leads` and `--threads` come to."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from einthoven.cli.progress import console
from einthoven.errors import BackboneError

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
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the recipe: seed=1. Repeat it."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="A field of the backbone's config: missing_leads=zero. `einthoven backbones NAME` "
        "lists them. Repeat it.",
    ),
]


def _enough(resamples: int) -> int:
    """Refuse too few before anything is trained or predicted."""
    from einthoven.evaluate.estimate import Plan

    Plan(resamples=resamples)
    return resamples


Resamples = Annotated[
    int, typer.Option(min=0, callback=_enough, help="Bootstrap resamples; 0: no intervals.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def backbone_options(
    backbone: str,
    typed: Sequence[str] | None = None,
    *,
    leads: str | None = None,
    beside: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fields of a backbone's config by `--option` and `--leads`, tried out before any data is read.

    Parameters
    ----------
    backbone : str
        A registered name.
    typed : sequence of str, optional
        `key=value`, the value in TOML's notation; texts may go without quotes.
    leads : str, optional
        Names with commas between them.
    beside : mapping, optional
        Fields that hold where nothing was typed.

    Returns
    -------
    dict
        Those beside, and those typed.

    Raises
    ------
    BackboneError
        For what is no assignment, a field given twice, and whatever the backbone refuses.
    """
    given = _parsed(typed, leads)
    options = {**(beside or {}), **given}
    if given:
        import torch

        from einthoven.backbones.config import override
        from einthoven.backbones.registry import create_backbone

        with torch.device("meta"):  # no weights are drawn
            override(create_backbone(backbone).config, given)  # not a seed, which goes elsewhere
            create_backbone(backbone, **options)
    return options


def _parsed(typed: Sequence[str] | None, leads: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if leads:
        given["leads"] = lead_names(leads)
    for text in typed or ():
        key, equals, value = (part.strip() for part in text.partition("="))
        if not key or not equals:
            raise BackboneError(
                f"--option {text!r} is no assignment", remedy="write --option missing_leads=zero"
            )
        if key in given:
            also = ", once by --leads" if key == "leads" and leads else ""
            raise BackboneError(
                f"--option {key} is given twice{also}", remedy="give every field once"
            )
        given[key] = _literal(value)
    return given


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def lead_names(text: str) -> tuple[str, ...]:
    """Leads by their names, with commas between them and perhaps blanks: `I, ii` are I and II.

    Raises
    ------
    BackboneError
        When there is nothing before, between or behind the commas.
    """
    from einthoven.records import canonical_lead

    names = tuple(map(canonical_lead, text.split(",")))
    if not all(names):
        raise BackboneError(f"--leads {text!r} lacks a name", remedy="write --leads I,II,V2")
    return names


def use_threads(threads: int | None) -> None:
    """Take as many threads for PyTorch as are asked for, and say so."""
    if threads:
        import torch

        torch.set_num_threads(threads)
        console.print(f"{threads} threads")
