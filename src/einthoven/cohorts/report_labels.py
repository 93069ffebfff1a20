"""Labels from the text of reports, by a pattern file.

A pattern file (docs/labels.md) names the phrases of each label, the cues of negation and of
uncertainty, and which label implies which. A line of a report is read in these steps:

1. HTML entities, case, blanks and umlauts are brought to one spelling (`spelt`);
2. the phrases of every label are found;
3. a phrase in the scope of a negation is negated, in that of an uncertainty it is uncertain; a
   scope ends at a break, after a number of words, and after a phrase that no "or" continues;
4. the record has the best of its phrases, and what they imply.
"""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from einthoven.cohorts.mimic_iv_ecg import RECORDS
from einthoven.cohorts.table import NOT_LABELS
from einthoven.errors import CohortError, validated
from einthoven.files import Json, read_table, read_toml, write_text

PATTERNS = Path(__file__).resolve().parent / "patterns"
"""Folder of the shipped pattern files."""
UNCERTAIN = ("positive", "unknown", "negative")
"""What an uncertain phrase counts as."""
LONGEST = 10_000
"""Characters of a line."""

# Repetitions are bounded, few, and of single characters only: the time of a search is proportional
# to the length of the line.
_REPEATED = 40
_REPETITIONS = 3
_OPTIONS = 12
_PART = re.compile(
    r"(?P<one>\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[\](){}*+?|^$])"
    r"(?P<times>[*+]|\{\d*,?\d*\})?"
    r"|(?P<group>[*+{])|(?P<option>(?<!\()\?)|.",
    re.DOTALL,
)

_SPELLINGS = str.maketrans({
    "ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe",
    "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "’": "'", "–": "-", "—": "-", "‐": "-", "‑": "-",
})  # fmt: skip
_TAG = re.compile(r"<[a-zA-Z/!][^<>]{0,200}>")
_STATEMENT = re.compile(r"[\r\n\f\v]+(?![ \t])")  # an indented line continues the one before
_PUNCTUATION = r"[.;:!?,](?! ?grad)(?= |$)| -+ "  # not that of "AV-Block I. Grades"
_WORD = re.compile(r"[^\W\d_]{3}")

# Names of the same columns in published tables.
_COLUMNS = {
    "path": ("filename_lr", "filename_hr"),
    "patient": ("patient_id", "subject_id"),
    "record": ("ecg_id", "study_id"),
    "fold": ("strat_fold",),
}
_LINES = re.compile(r"report_\d+")
_TEXTS = ("report", "text")


@validated("label", CohortError)
class Label:
    """Phrases of a label: regular expressions of whole words.

    Attributes
    ----------
    name : str
    patterns : tuple of str
        Phrases that mean the label.
    unless : tuple of str
        Longer phrases that contain one of them and do not mean it.
    implies : tuple of str
        Labels that hold if this one does.
    """

    name: str
    patterns: tuple[str, ...]
    unless: tuple[str, ...] = ()
    implies: tuple[str, ...] = ()


@validated("cues", CohortError)
class Cues:
    """Words that stand before or after a phrase; not those that are part of `unless`."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


class Hit(NamedTuple):
    """A phrase of a label in a line; `state` is `positive`, `uncertain` or `negated`."""

    label: str
    state: str
    phrase: str
    cue: str


class _Found(NamedTuple):
    start: int
    end: int
    label: str


@validated("pattern file", CohortError)
class Patterns:
    """A pattern file.

    Attributes
    ----------
    labels : tuple of Label
    negation, uncertainty : Cues
        A cue of uncertainty that contains one of negation counts ("cannot rule out").
    breaks : tuple of str
        Words that end the scope of a cue, as punctuation does.
    joins : tuple of str
        Words that continue a scope after a phrase, such as "or".
    scope : int
        Words between a cue and a phrase, at most.
    uncertain : {"positive", "unknown", "negative"}
        What an uncertain phrase counts as.
    description : str
    """

    labels: tuple[Label, ...]
    negation: Cues = Cues()
    uncertainty: Cues = Cues()
    breaks: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    scope: int = 6
    uncertain: Literal["positive", "unknown", "negative"] = "positive"
    description: str = ""

    @cached_property
    def implied(self) -> dict[str, tuple[str, ...]]:
        """Labels that each label implies, directly or through others."""
        direct = {label.name: label.implies for label in self.labels}

        def above(name: str, below: tuple[str, ...]) -> Iterator[str]:
            for other in direct[name]:
                if other not in direct:
                    raise CohortError(
                        f"label {name!r} implies {other!r}, which is no label",
                        remedy=f"use one of {', '.join(direct)}",
                    )
                if other in below:
                    raise CohortError(
                        f"labels imply each other: {' -> '.join((*below, other))}",
                        remedy="let the special one imply the general one only",
                    )
                yield other
                yield from above(other, (*below, other))

        return {name: tuple(dict.fromkeys(above(name, (name,)))) for name in direct}

    @cached_property
    def _regexes(self) -> dict[str, tuple[re.Pattern[str], re.Pattern[str] | None]]:
        return {
            label.name: (
                _regex(label.patterns, f"label {label.name!r}"),
                _regex(label.unless, f"label {label.name!r}") if label.unless else None,
            )
            for label in self.labels
        }

    @cached_property
    def _cues(self) -> dict[str, tuple[re.Pattern[str] | None, ...]]:
        return {
            name: tuple(
                _regex(words, f"{name}.{place}") if words else None
                for place, words in vars(cues).items()
            )
            for name, cues in (("negation", self.negation), ("uncertainty", self.uncertainty))
        }

    @cached_property
    def _limits(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        words = _regex(self.breaks, "breaks").pattern if self.breaks else "(?!)"
        joins = _regex(self.joins, "joins") if self.joins else re.compile("(?!)")
        return re.compile(f"{_PUNCTUATION}|{words}", re.IGNORECASE), joins

    def check(self) -> None:
        """Refuse patterns that are invalid or unbounded, and implications that do not fit.

        Raises
        ------
        CohortError
        """
        if not self.labels:
            raise CohortError("no label", remedy="add a table such as [labels.AFIB]")
        if bad := [label.name for label in self.labels if label.name in NOT_LABELS]:
            raise CohortError(
                f"the label {bad[0]!r} has the name of another column of a cohort's table",
                remedy=f"use none of the names {', '.join(NOT_LABELS)}",
            )
        if bare := [label.name for label in self.labels if not label.patterns]:
            raise CohortError(f"label {bare[0]!r} has no patterns", remedy="add one, or remove it")
        self.implied, self._regexes, self._cues, self._limits  # noqa: B018  # compiled here

    def read(self, line: str) -> tuple[list[Hit], list[str]]:
        """Phrases of a line in one spelling (`spelt`), and the parts of it that have none."""
        found = sorted(
            _Found(*match.span(), name)
            for name, (pattern, unless) in self._regexes.items()
            for match in _outside(pattern.finditer(line), _spans(unless, line))
        )
        cues = {"uncertain": self._cues_in(line, "uncertainty", [])}
        doubts = [span for side in cues["uncertain"] for span in side]
        cues["negated"] = self._cues_in(line, "negation", doubts)
        hits = []
        for each in found:
            state, cue = "positive", ""
            for kind in ("negated", "uncertain"):
                if (span := self._cue_of(each, line, found, *cues[kind])) is not None:
                    state, cue = kind, line[slice(*span)]
                    break
            hits.append(Hit(each.label, state, line[each.start : each.end], cue))
        used = [(each.start, each.end) for each in found]
        used += [span for sides in cues.values() for side in sides for span in side]
        return hits, list(self._rest(line, used))

    def _cues_in(
        self, line: str, name: str, taken: list[tuple[int, int]]
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        before, after, unless = self._cues[name]
        taken = [*taken, *_spans(unless, line)]
        first, second = (
            [] if regex is None else [m.span() for m in _outside(regex.finditer(line), taken)]
            for regex in (before, after)
        )
        return first, second

    def _cue_of(
        self,
        each: _Found,
        line: str,
        found: list[_Found],
        before: list[tuple[int, int]],
        after: list[tuple[int, int]],
    ) -> tuple[int, int] | None:
        """The cue in whose scope a phrase is: the nearest one on either side, or none."""
        left = max((span for span in before if span[1] <= each.start), default=None)
        if left and self._reaches(line, left[1], each.start, found, True):
            return left
        right = min((span for span in after if each.end <= span[0]), default=None)
        if right and self._reaches(line, each.end, right[0], found, False):
            return right
        return None

    def _reaches(
        self, line: str, start: int, end: int, found: list[_Found], is_before: bool
    ) -> bool:
        """Whether a scope extends over the text between a cue and a phrase."""
        text = line[start:end]
        if len(text.split()) > self.scope or self._limits[0].search(line, start, end):
            return False
        others = [other for other in found if start <= other.start and other.end <= end]
        if not others:
            return True
        if is_before:
            between = line[max(other.end for other in others) : end]
        else:
            between = line[start : min(other.start for other in others)]
        return self._limits[1].search(between) is not None

    def _rest(self, line: str, used: list[tuple[int, int]]) -> Iterator[str]:
        cuts = sorted([*used, *(match.span() for match in self._limits[0].finditer(line))])
        place = 0
        for start, end in [*cuts, (len(line), len(line))]:
            text = line[place : max(start, place)].strip(" ,.;:-*/")
            if _WORD.search(text):
                yield text
            place = max(place, end)


def _spans(regex: re.Pattern[str] | None, line: str) -> list[tuple[int, int]]:
    return [] if regex is None else [match.span() for match in regex.finditer(line)]


def _outside(
    matches: Iterator[re.Match[str]], spans: Sequence[tuple[int, int]]
) -> Iterator[re.Match[str]]:
    for match in matches:
        if not any(start < match.end() and match.start() < end for start, end in spans):
            yield match


def _regex(patterns: Sequence[str], place: str) -> re.Pattern[str]:
    """One regular expression for any of several, of whole words, with bounded repetitions."""
    parts = []
    for pattern in dict.fromkeys(patterns):
        try:
            text = _bounded(_one_spelling(pattern))
            if re.compile(text).search("") is not None:
                raise ValueError("it matches an empty text")
        except (ValueError, re.error) as error:
            raise CohortError(
                f"{place}: pattern {pattern!r}: {error}",
                remedy="write a regular expression of words, such as 'infarct\\w*'; docs/labels.md "
                "lists what it may contain",
            ) from error
        parts.append(f"(?:{text})")
    either = "|".join(parts)
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)


def _bounded(pattern: str) -> str:
    """The pattern with `*` and `+` as bounded repetitions; ValueError where they are not enough."""
    repetitions = options = 0
    text = ""
    for part in _PART.finditer(pattern):
        if part["group"]:
            raise ValueError(f"{part['group']!r} repeats a group; repeat single characters only")
        options += part["option"] is not None
        if not (times := part["times"]):
            text += part[0]
            continue
        low, _, high = {"*": "0,", "+": "1,"}.get(times, times.strip("{}")).partition(",")
        most = int(high) if high else _REPEATED if "," in times or times in "*+" else int(low)
        if most > _REPEATED:
            raise ValueError(f"{times} repeats more than {_REPEATED} times")
        repetitions += most != int(low or 0)
        text += f"{part['one']}{{{low or 0},{most}}}"
    if repetitions > _REPETITIONS or options > _OPTIONS:
        raise ValueError(
            f"more than {_REPETITIONS} repetitions or {_OPTIONS} question marks; divide it into "
            "several patterns"
        )
    return text


def load_patterns(source: str | Path) -> Patterns:
    """Read a pattern file: the name of a shipped one, or a `.toml` file.

    Raises
    ------
    CohortError
        If the file is missing or invalid.
    """
    content = _content(source, Path(), ())
    try:
        tables = _table(content.get("labels", {}), "labels")
        content["labels"] = [Label(**_named(name, values)) for name, values in tables.items()]
        for name in ("negation", "uncertainty"):
            content[name] = Cues(**_table(content.get(name, {}), name))
        patterns = Patterns(**content)
        patterns.check()
    except CohortError as error:
        raise CohortError(f"{source}: {error.problem}", remedy=error.remedy) from error
    return patterns


def shipped_patterns() -> list[str]:
    """Names of the shipped pattern files that have labels."""
    names = sorted(file.stem for file in PATTERNS.glob("*.toml"))
    return [name for name in names if "labels" in read_toml(PATTERNS / f"{name}.toml", CohortError)]


def _named(name: str, values: Any) -> Json:
    return {**_table(values, f"labels.{name}"), "name": name}


def _table(value: Any, name: str) -> Json:
    if not isinstance(value, dict):
        raise CohortError(f"{name} = {value!r} is no table", remedy=f"begin it with [{name}]")
    return value


def _content(source: str | Path, folder: Path, below: tuple[Path, ...]) -> Json:
    """Keys of a file and of those that it extends; lists are joined."""
    file = folder / source
    if file.suffix != ".toml":
        file = PATTERNS / f"{source}.toml"
        if not file.is_file():
            raise CohortError(
                f"there are no patterns {str(source)!r}",
                remedy=f"use {', '.join(shipped_patterns())}, or a .toml file",
            )
    file = file.resolve()
    if file in below:
        raise CohortError(f"{file} extends itself", remedy="remove that line")
    own = read_toml(file, CohortError)
    value = own.pop("extends", [])
    bases = [value] if isinstance(value, str) else value
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise CohortError(f"{file}: extends = {value!r}", remedy="name a file, or a list of them")
    content: Json = {}
    for base in bases:
        content = _joined(content, _content(base, file.parent, (*below, file)))
    return _joined(content, own)


def _joined(base: Json, own: Json) -> Json:
    """Tables and lists of both; other values of the second."""
    joined = dict(base)
    for key, value in own.items():
        former = base.get(key)
        if isinstance(value, dict) and isinstance(former, dict):
            joined[key] = _joined(former, value)
        elif isinstance(value, list) and isinstance(former, list):
            joined[key] = [*former, *value]
        else:
            joined[key] = value
    return joined


# ------------------------------------------------------------------ text


def _one_spelling(text: str) -> str:
    """Text without accents: `ä` and `ae`, `å` and `a` are the same."""
    plain = unicodedata.normalize("NFKC", text).translate(_SPELLINGS)
    return "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))


def spelt(text: str) -> list[str]:
    """Lines of a report in one spelling: lower case, `ae` for `ä`, no HTML, single blanks."""
    text = html.unescape(html.unescape(text))
    lines = _STATEMENT.split(_TAG.sub("\n", text))
    plain = (" ".join(_one_spelling(line).lower().split()) for line in lines)
    return [line for line in plain if line]


# ------------------------------------------------------------------ tables


@dataclass(frozen=True)
class ReportLabels:
    """Labels of the records of a table.

    Attributes
    ----------
    table : DataFrame
        The table's columns of a cohort (`path`, `patient`, ...) and a column a label: 1, 0, or NaN
        where it is not known. A record without a report has no known label.
    counts : DataFrame
        By label, the number of records in which it is `positive`, `uncertain` or `negated`.
    phrases : DataFrame
        A row for each label that a record mentions: `record`, `label`, `state`, the `phrase` that
        fired, the `cue` that made it uncertain or negated, and the `line`.
    unmatched : DataFrame
        `phrase` without a label, and the number of `records` with it, most frequent first.
    texts, without_match : int
        Records with a report, and those of them that mention no label.
    """

    table: pd.DataFrame
    counts: pd.DataFrame
    phrases: pd.DataFrame
    unmatched: pd.DataFrame
    texts: int
    without_match: int

    def write(self, out: Path, reports: Path) -> list[Path]:
        """Write the table, and `.phrases.csv` and `.unmatched.csv` beside it.

        Paths of ECG files are relative to the table that holds them: they are rewritten if `out` is
        in another folder than `reports`.

        Raises
        ------
        CohortError
            If `out` is no .csv file, or is `reports`.
        """
        if out.suffix != ".csv" or out.resolve() == reports.resolve():
            raise CohortError(
                f"{out}: the labels are written to a .csv file of their own",
                remedy="name another file with --out, such as labels.csv",
            )
        table, source, folder = self.table, reports.parent.resolve(), out.parent.resolve()
        if "path" in table and source != folder:
            paths = [
                path if pd.isna(path) else _moved(path, source, folder) for path in table["path"]
            ]
            table = table.assign(path=paths)
        files = {
            out: table,
            out.with_suffix(".phrases.csv"): self.phrases,
            out.with_suffix(".unmatched.csv"): self.unmatched,
        }
        for file, frame in files.items():
            write_text(file, frame.to_csv(index=False))
        return list(files)


def _moved(path: str, source: Path, folder: Path) -> str:
    return path if Path(path).is_absolute() else os.path.relpath(source / path, folder)


@dataclass
class _Records:
    """What is collected over the records."""

    values: Any
    phrases: list[tuple[object, ...]] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    rest: Counter[str] = field(default_factory=Counter)
    texts: int = 0
    without_match: int = 0


_STATES = ("positive", "uncertain", "negated")


def read_reports(file: Path) -> pd.DataFrame:
    """Read a table of reports, with the names of a cohort's columns.

    `patient_id` and `subject_id` are `patient`, `ecg_id` and `study_id` are `record`, `strat_fold`
    is `fold`; `filename_lr` is `path`, or `filename_hr` if only its files are there. The paths of
    MIMIC-IV-ECG are in `record_list.csv` beside its reports.

    Raises
    ------
    CohortError
        If the table cannot be read.
    """
    names = [name for names in _COLUMNS.values() for name in names]
    text = ["path", "patient", "record", *names[:-1]]
    frame = read_table(file, CohortError, text=text)
    listing = file.parent / RECORDS
    if "study_id" in frame and "path" not in frame and listing.is_file():
        paths = read_table(listing, CohortError, text=text)
        if {"study_id", "path"} <= set(paths) and paths["study_id"].is_unique:
            frame = frame.merge(paths[["study_id", "path"]], on="study_id", how="left")
    for name, others in _COLUMNS.items():
        present = [other for other in others if other in frame]
        if name == "path":
            present.sort(key=lambda other: not _has_file(file.parent, frame[other]))
        if name not in frame and present:
            frame = frame.rename(columns={present[0]: name})
    return frame


def _has_file(folder: Path, paths: Any) -> bool:
    """Whether the first record of a column of WFDB's names has its header."""
    return any((folder / f"{path}.hea").is_file() for path in paths.head(1))


def label_reports(
    reports: pd.DataFrame,
    patterns: Patterns,
    *,
    columns: Sequence[str] = (),
    uncertain: str | None = None,
) -> ReportLabels:
    """Label reports by a pattern file.

    Parameters
    ----------
    reports : DataFrame
        One row for each record.
    patterns : Patterns
    columns : sequence of str
        Columns of text. Default: `report_0`, `report_1`, ..., else `report` or `text`.
    uncertain : {"positive", "unknown", "negative"}, optional
        Instead of that of the pattern file.

    Raises
    ------
    CohortError
        For missing columns, a line of more than 10,000 characters, or if no report mentions any
        label.
    """
    meaning = uncertain or patterns.uncertain
    if meaning not in UNCERTAIN:
        raise CohortError(f"uncertain = {meaning!r}", remedy=f"use {', '.join(UNCERTAIN)}")
    names = [label.name for label in patterns.labels]
    kept = [name for name in NOT_LABELS if name in reports]
    texts = _text_columns(reports, columns)
    key = next((name for name in ("record", "path") if name in reports), None)
    keys = list(reports.index + 1 if key is None else reports[key])
    found = _Records(np.full((len(reports), len(names)), np.nan, dtype=np.float32))
    read, lines_of = cache(patterns.read), cache(spelt)  # statements of machines repeat
    for row, cells in enumerate(zip(*(reports[name] for name in texts), strict=True)):
        lines = [line for cell in cells if isinstance(cell, str) for line in lines_of(cell)]
        if not lines:
            continue
        for line in lines:
            if len(line) > LONGEST:
                raise CohortError(
                    f"row {row + 1}: a line of {len(line):,} characters; a report has at most "
                    f"{LONGEST:,}",
                    remedy="name the column of the report with --text",
                )
        hits = {line: read(line)[0] for line in lines}
        best = _best(hits, patterns)
        found.texts += 1
        found.without_match += not best
        found.rest.update({part for line in lines for part in read(line)[1]})
        states = [best[name][0].state if name in best else "" for name in names]
        found.values[row] = [_value(state, meaning) for state in states]
        for name, (hit, line) in best.items():
            found.counts[name, hit.state] += 1
            found.phrases.append((keys[row], name, hit.state, hit.phrase, hit.cue, line))
    if not found.phrases:
        raise CohortError(
            f"no phrase of the {len(names)} labels occurs in {found.texts:,} reports of the "
            f"columns {', '.join(texts)}",
            remedy="use patterns of the language of the reports, and name their columns by --text",
        )
    return ReportLabels(
        table=pd.concat(
            [
                reports[kept].reset_index(drop=True),
                pd.DataFrame(found.values, columns=names).astype("Int8"),
            ],
            axis=1,
        ),
        counts=pd.DataFrame(
            [[found.counts[name, state] for state in _STATES] for name in names],
            index=pd.Index(names, name="label"),
            columns=list(_STATES),
        ),
        phrases=pd.DataFrame(
            found.phrases, columns=[key or "row", "label", "state", "phrase", "cue", "line"]
        ),
        unmatched=pd.DataFrame(
            # Equal numbers in alphabetical order: `most_common` keeps the order of the dictionary.
            Counter(dict(sorted(found.rest.items()))).most_common(),
            columns=["phrase", "records"],
        ),
        texts=found.texts,
        without_match=found.without_match,
    )


def _text_columns(reports: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    if missing := [name for name in columns if name not in reports]:
        raise CohortError(
            f"columns {missing} are missing; the table has {list(reports.columns[:12])}",
            remedy="name a column of the table",
        )
    if columns:
        return list(columns)
    lines = [str(name) for name in reports if _LINES.fullmatch(str(name))]
    if lines:
        return sorted(lines, key=lambda name: int(name.rpartition("_")[2]))
    if texts := [name for name in _TEXTS if name in reports]:
        return texts[:1]
    raise CohortError(
        f"no column of text: the table has {list(reports.columns[:12])}",
        remedy="name the column of the reports by --text",
    )


def _best(hits: Mapping[str, Sequence[Hit]], patterns: Patterns) -> dict[str, tuple[Hit, str]]:
    """By label, the most certain phrase of a record, with its line; `hits` are those by line."""
    best: dict[str, tuple[Hit, str]] = {}
    for line, found in hits.items():
        for hit in found:
            above = patterns.implied[hit.label] if hit.state != "negated" else ()
            for name in (hit.label, *above):
                former = best.get(name)
                if former is None or _STATES.index(hit.state) < _STATES.index(former[0].state):
                    best[name] = hit, line
    return best


def _value(state: str, uncertain: str) -> float:
    if state != "uncertain":
        return float(state == "positive")
    return {"positive": 1.0, "unknown": np.nan, "negative": 0.0}[uncertain]
