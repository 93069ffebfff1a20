"""Pattern files: phrases of labels in the lines of reports.

A pattern file (docs/labels.md) names the phrases of each label, the cues of negation and of
uncertainty, and which label implies which. A line of a report is read in these steps:

1. HTML entities, case, blanks and umlauts are brought to one spelling (`spelt`);
2. the phrases of every label are located;
3. a phrase in the scope of a negation is negated, in that of an uncertainty it is uncertain; a
   scope ends at a break, after a number of words, and after a phrase that no "or" continues.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from einthoven.cohorts.table import NOT_LABELS
from einthoven.errors import CohortError, validated
from einthoven.files import Json, read_toml

PATTERNS = Path(__file__).resolve().parent / "patterns"
"""Folder of the shipped pattern files."""

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


class _Phrase(NamedTuple):
    """Place of a label's phrase in a line."""

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
        phrases = sorted(
            _Phrase(*match.span(), name)
            for name, (pattern, unless) in self._regexes.items()
            for match in _outside(pattern.finditer(line), _spans(unless, line))
        )
        cues = {"uncertain": self._cues_in(line, "uncertainty", [])}
        doubts = [span for side in cues["uncertain"] for span in side]
        cues["negated"] = self._cues_in(line, "negation", doubts)
        hits = []
        for phrase in phrases:
            state, cue = "positive", ""
            for kind in ("negated", "uncertain"):
                if (span := self._cue_of(phrase, line, phrases, *cues[kind])) is not None:
                    state, cue = kind, line[slice(*span)]
                    break
            hits.append(Hit(phrase.label, state, line[phrase.start : phrase.end], cue))
        used = [(phrase.start, phrase.end) for phrase in phrases]
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
        phrase: _Phrase,
        line: str,
        phrases: list[_Phrase],
        before: list[tuple[int, int]],
        after: list[tuple[int, int]],
    ) -> tuple[int, int] | None:
        """The cue in whose scope a phrase is: the nearest one on either side, or none."""
        left = max((span for span in before if span[1] <= phrase.start), default=None)
        if left and self._reaches(line, left[1], phrase.start, phrases, True):
            return left
        right = min((span for span in after if phrase.end <= span[0]), default=None)
        if right and self._reaches(line, phrase.end, right[0], phrases, False):
            return right
        return None

    def _reaches(
        self, line: str, start: int, end: int, phrases: list[_Phrase], is_before: bool
    ) -> bool:
        """Whether a scope extends over the text between a cue and a phrase."""
        text = line[start:end]
        if len(text.split()) > self.scope or self._limits[0].search(line, start, end):
            return False
        others = [other for other in phrases if start <= other.start and other.end <= end]
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
