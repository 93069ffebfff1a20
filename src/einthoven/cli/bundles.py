"""Which bundle is meant: a folder, the name of a shipped one, or a mistake in typing."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from einthoven.errors import CohortError, EvaluationError, ModelError
from einthoven.models import CONFIG, SHIPPED, is_model, model_path

TABLES = (".csv", ".parquet")
_NEAR = 3


def named_bundle(path: Path) -> Path:
    """A path that is said to be a bundle.

    Raises
    ------
    ModelError
        When it is none, naming those that are there.
    """
    if path == Path(SHIPPED) or is_model(path):
        return path
    why = f"{CONFIG} is missing" if path.exists() else "nothing is there"
    raise ModelError(f"{path} is no bundle: {why}", remedy=_choose(path))


def bundle_first(arguments: Sequence[Path]) -> tuple[Path, list[Path]]:
    """The bundle, the shipped one where none is named, and what is to be embedded.

    Raises
    ------
    ModelError
        When nothing is named beside the bundle, or the first argument is a mistyped one.
    EvaluationError
        When a cohort is named beside something else.
    """
    first, *others = arguments
    if is_model(first):
        if not others:
            raise ModelError(
                f"{first} is a bundle, and nothing to embed is named",
                remedy="add a cohort or ECG files",
            )
        _refuse_cohorts(others)
        return first, others
    if others and is_folder(first):
        raise ModelError(
            f"{first} is a folder without {CONFIG}, and {others[0]} is named after it",
            remedy=f"{_choose(first)}; cohorts are embedded one at a time",
        )
    if not (first.exists() or _is_ecg(first)) and (others or first.suffix not in TABLES):
        raise ModelError(
            f"{first} does not exist: it is no bundle, no cohort and no ECG file",
            remedy=_choose(first),
        )
    _refuse_cohorts(arguments)
    return Path(SHIPPED), list(arguments)


def is_cohort(path: Path) -> bool:
    """Whether a path is one of a cohort: a folder or a table."""
    return path.is_dir() or path.suffix in TABLES


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, and not a record's name that a folder happens to share."""
    return path.is_dir() and not _header(path).is_file()


def ecg_file(path: Path) -> Path:
    """A path that is said to be an ECG file.

    Raises
    ------
    CohortError
        When it is a folder.
    """
    if not is_folder(path):
        return path
    from einthoven.records.formats import find_records

    inside = find_records(path)
    example = f", such as {inside[0]}" if inside else ""
    raise CohortError(
        f"{path} is a folder, and predict takes ECG files",
        remedy=f"name the files in it{example}; a whole cohort goes to `einthoven embed`, or with "
        f"its labels to `einthoven evaluate --model BUNDLE --cohort {path}`",
    )


def _refuse_cohorts(sources: Sequence[Path]) -> None:
    for path in sources:
        if len(sources) > 1 and (is_folder(path) or path.suffix in TABLES):
            what = "a folder" if path.is_dir() else "a table"
            raise EvaluationError(
                f"{path} is {what}, and {len(sources)} things are to be embedded",
                remedy="embed a cohort by itself, or name ECG files alone",
            )


def _is_ecg(path: Path) -> bool:
    """Whether a path has an ECG file's suffix, or is a record that is named without one."""
    from einthoven.errors import RecordError
    from einthoven.records.formats import format_of

    try:
        format_of(path)
    except RecordError:
        return False
    return True


def _header(path: Path) -> Path:
    return path.with_name(f"{path.name}.hea")


def _choose(path: Path) -> str:
    """The bundles that are there: those that look like what was typed, and the shipped ones."""
    near = {path / "model", *path.parent.glob("*"), *path.parent.parent.glob("*/model")}
    own = [str(place) for place in sorted(near) if (place / CONFIG).is_file()]
    shipped = sorted(file.parent.name for file in model_path(SHIPPED).parent.glob(f"*/{CONFIG}"))
    named = get_close_matches(str(path), own, n=_NEAR, cutoff=0.0)
    names = [*named, *(f"{name}, which comes with einthoven" for name in shipped)]
    return f"name a bundle, such as {' or '.join(names)}"
