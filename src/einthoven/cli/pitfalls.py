"""`einthoven reproduce pitfalls`: what the common mistakes with PTB-XL are worth."""

from __future__ import annotations

from pathlib import Path

import typer

from einthoven.errors import ReproduceError


def measure_pitfalls(
    cohort: Path | None,
    *,
    model: Path | None,
    store: Path | None,
    page: Path,
    device: str,
    threads: int | None,
) -> None:
    """Measure them and write the section of a page."""
    from einthoven.cli.device import device_of
    from einthoven.cli.options import use_threads
    from einthoven.cli.progress import shown_warnings, training
    from einthoven.cli.stores import store_of
    from einthoven.cohorts.ptbxl import is_ptbxl_layout
    from einthoven.reproduce.pitfalls.measure import gather, measure
    from einthoven.reproduce.pitfalls.page import command, section
    from einthoven.reproduce.sections import write_sections
    from einthoven.shipped import SHIPPED

    if cohort is None or not is_ptbxl_layout(cohort):
        raise ReproduceError(
            "no --cohort is named" if cohort is None else f"{cohort} is not PTB-XL's folder",
            remedy="einthoven reproduce pitfalls --cohort data/ptb-xl",
        )
    use_threads(threads)
    packed = store_of(cohort, store)
    with training() as (_, progress), shown_warnings():
        material = gather(
            cohort, packed, model=model or SHIPPED, device=device_of(device), progress=progress
        )
        found = measure(material, progress=progress)
    written = write_sections(page, [section(material, found, command(own_model=model is not None))])
    typer.echo(f"Page: {written[0]}")
    typer.echo(f"Numbers: {written[-1]}")
