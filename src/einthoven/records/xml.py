"""Shared by the readers of XML formats: parsing, root element, numbers, samples."""

from __future__ import annotations

import binascii
import datetime as dt
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import EcgFile
from einthoven.records.record import MILLIVOLTS

ROOTS = {
    "HL7 aECG": ("AnnotatedECG", "urn:hl7-org:v3"),
    "GE MUSE": ("RestingECG", ""),
    "GE CardioSoft": ("CardiologyXML", ""),
    "Philips Sierra": ("restingecgdata", "http://www3.medical.philips.com"),
}
"""Root element and namespace of each format."""

_EXPORT = "export the ECG again"
_LARGEST = 32 << 20  # bytes; 15 minutes of twelve leads at 500 Hz have about 25 MB in decimals
_MARKS = {b"<": 500_000, b"=": 500_000}  # bounds the memory of elements and attributes
_BEGINNINGS = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe<\0", b"\xfe\xff\0<", b"<\0", b"\0<")
_NUMBER = r"[-+]?+(?:\d{1,18}+(?:\.\d{0,18}+)?+|\.\d{1,18}+)(?:[eE][-+]?\d{1,3}+)?+"
_NUMBERS = {
    separator: re.compile(rf"{_NUMBER}(?:{between}{_NUMBER})*+", re.ASCII)
    for separator, between in ((" ", r"\s++"), (",", r"\s*+,\s*+"))
}
_SMALLEST_NUMBER, _LARGEST_NUMBER = 1e-12, 1e12  # in any unit that the formats have


# ------------------------------------------------------------------ elements


@lru_cache(maxsize=1)
def _parser() -> type[Any]:
    """Class of the parser, imported with the first XML file."""
    from defusedxml import DTDForbidden
    from defusedxml.ElementTree import DefusedXMLParser

    class Parser(DefusedXMLParser):  # type: ignore[misc]
        """Parser without entities, and without the files that a document type names.

        MUSE writes `<!DOCTYPE RestingECG SYSTEM "restecg.dtd">` into every file. That much is
        accepted and never opened; declarations inside the file are refused.
        """

        def __init__(self, target: object) -> None:
            super().__init__(target=target, forbid_dtd=True)

        def defused_start_doctype_decl(
            self, name: str, sysid: str | None, pubid: str | None, has_internal_subset: int
        ) -> None:
            if has_internal_subset:
                raise DTDForbidden(name, sysid, pubid)

    return Parser


class _RootFoundError(Exception):
    """Ends parsing at the first element."""


class _Root:
    """Target of a parser that ends at the first element."""

    name = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.name = tag
        raise _RootFoundError

    def end(self, tag: str) -> None: ...

    def data(self, data: str) -> None: ...

    def close(self) -> None: ...


@lru_cache(maxsize=8)
def format_name(head: bytes) -> str:
    """Name of the format of an XML file, by its root element; empty if it is none of them.

    Parameters
    ----------
    head : bytes
        First bytes of the file, at least as far as the start tag of the root element.
    """
    head = _without_blanks(head)
    if not head.startswith(_BEGINNINGS):
        return ""
    root = _Root()
    try:
        _parser()(root).feed(head)
    except _RootFoundError:
        namespace, _, tag = root.name.removeprefix("{").rpartition("}")
        for name, (expected, standard) in ROOTS.items():
            # Exports without a namespace are read; one of another standard is another format.
            if tag == expected and namespace in ("", standard):
                return name
    except Exception:
        pass  # not XML, or refused by `parse` with the reason
    return ""


def parse(file: EcgFile, name: str) -> Element:
    """Root element of a file; namespaces are removed from the names of elements.

    Parameters
    ----------
    file : EcgFile
        The file, in any encoding that it declares.
    name : str
        Name of the format that it has to be of.

    Raises
    ------
    RecordError
        If the file is not well-formed, declares entities, has more bytes, elements or attributes
        than any ECG, or has the root element of another format.
    """
    if file.size > _LARGEST:
        reason = f"an ECG in XML has at most {_LARGEST} bytes"
        raise file.refusal(
            "size", file.size, reason, remedy="export a shorter part of the recording"
        )
    content = _without_blanks(file.content)
    for mark, most in _MARKS.items():
        if content.count(mark) > most:
            reason = "is in the file more often than in any ECG"
            raise file.refusal("XML", mark.decode(), reason, remedy=_EXPORT)
    parser = _parser()(TreeBuilder())
    try:
        parser.feed(content)
        root: Element = parser.close()
    # The parsers raise ParseError, ValueError, LookupError, AssertionError and others.
    except Exception as error:
        reason = f"is cut off, damaged or otherwise no XML: {_reason(error)}"
        raise file.refusal("XML", None, reason, remedy="fetch or export the ECG again") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != ROOTS[name][0]:
        if root.tag in {tag for tag, _ in ROOTS.values()}:
            reason = "must begin in the first 4,096 bytes of the file"
            raise file.refusal(
                "root element", root.tag, reason, remedy="remove the comments in front of it"
            )
        reason = f"no known format of ECGs; the XML formats are {', '.join(ROOTS)}"
        raise file.refusal("root element", root.tag, reason, remedy=f"{_EXPORT} in one of them")
    return root


def _without_blanks(content: bytes) -> bytes:
    """Content without leading blanks, which XML forbids and hand-made exports have."""
    return content.lstrip(b" \t\r\n") if content[:1] in b" \t\r\n" else content


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    if kind in {"DTDForbidden", "EntitiesForbidden", "ExternalReferenceForbidden"}:
        return "it declares a document type or entities, which no ECG needs"
    return str(error) or kind


def text_of(element: Element | None, path: str) -> str:
    """Text of the first element at a path, without surrounding blanks; empty if there is none."""
    return ((element.findtext(path) if element is not None else None) or "").strip()


def attribute_of(element: Element | None, path: str, name: str) -> str:
    """Attribute of the first element at a path; empty if there is none."""
    child = element.find(path) if element is not None else None
    return (child.get(name) or "").strip() if child is not None else ""


def statements_of(elements: list[Element], *paths: str) -> list[str]:
    """Statements: one for each element, of the texts at some paths."""
    lines = (" ".join(filter(None, (text_of(each, path) for path in paths))) for each in elements)
    return [line for line in lines if line]


def interpretation(original: list[str], edited: list[str]) -> dict[str, list[str]]:
    """Metadata of the device's statements and of edited ones, which stand in for missing ones."""
    differ = original and edited != original
    return {"statements": original or edited, "edited_statements": edited if differ else []}


# ------------------------------------------------------------------ numbers


def figure(text: str) -> float | None:
    """Number in a text; None for anything else, such as `Indeterminate` or a number beyond use."""
    if not re.fullmatch(_NUMBER, text, re.ASCII):
        return None
    value = float(text)
    return value if not value or _SMALLEST_NUMBER < abs(value) < _LARGEST_NUMBER else None


def interval(text: str) -> float | None:
    """Rate or interval in a text; None for anything else, and for 0, which means not measured."""
    return figure(text) or None


def first_interval(texts: Iterable[str]) -> float | None:
    """First rate or interval among some texts; None without one."""
    return next(filter(None, map(interval, texts)), None)


def reported_age(text: str, years: float | None) -> float | None:
    """Age in years, from a number and its unit in years; None without either."""
    age = figure(text)
    return None if age is None or years is None else round(age * years, 2)


def number(file: EcgFile, field: str, text: str, *, positive: bool = False) -> float:
    """Number that a file has to state. RecordError if it does not, naming `field`."""
    value = figure(text)
    if value is None or (positive and value <= 0):
        reason = f"must be a {'positive ' if positive else ''}number"
        raise file.refusal(field, text or None, reason if text else "is missing", remedy=_EXPORT)
    return value


def count(file: EcgFile, field: str, text: str) -> int:
    """Whole number above zero that a file has to state. RecordError if it does not."""
    value = number(file, field, text, positive=True)
    if not value.is_integer():
        raise file.refusal(field, text, "must be a whole number", remedy=_EXPORT)
    return int(value)


def millivolts(file: EcgFile, field: str, unit: str) -> float:
    """Unit of voltage in millivolts. RecordError if it is none."""
    units = {name.lower(): value for name, value in MILLIVOLTS.items()} | {"nv": 1e-6}
    name = unit.replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u").lower()
    if name not in units:
        reason = "is no unit of voltage that is known: uV, mV, V, nV" if unit else "is missing"
        remedy = f"{_EXPORT} with the unit; it is never guessed"
        raise file.refusal(field, unit or None, reason, remedy=remedy)
    return units[name]


def samples(
    file: EcgFile, field: str, text: str | None, separator: str = " "
) -> NDArray[np.float64]:
    """Samples of a lead, written as decimals.

    Parameters
    ----------
    file, field
        For messages.
    text : str or None
        The numbers.
    separator : {" ", ","}
        What stands between two numbers; a last comma is ignored.

    Raises
    ------
    RecordError
        If there are none, or anything but numbers.
    """
    text = (text or "").strip().rstrip(separator)
    if not text:
        raise file.refusal(field, None, "has no samples", remedy=_EXPORT)
    # What is checked here leaves nothing that np.fromstring would read differently. Integers, which
    # nearly every file has, are checked and read three times as fast as decimals.
    kind: type[np.number] = np.int64
    if not _are_integers(text, separator):
        kind = np.float64
        if not _NUMBERS[separator].fullmatch(text):
            words = text.replace(separator, " ").split()
            wrong = next((word for word in words if figure(word) is None), text)
            raise file.refusal(field, wrong[:40], "is no number", remedy=_EXPORT)
    values = np.fromstring(text, dtype=kind, sep=separator).astype(np.float64)
    if not np.abs(values).max() < _LARGEST_NUMBER:
        raise file.refusal(field, None, "holds a value beyond any ECG", remedy=_EXPORT)
    return values


def _are_integers(text: str, separator: str) -> bool:
    """Whether a text is plainly written integers: no plus sign, and no blank before a comma."""
    framed = np.frombuffer(f"{separator}{text}{separator}".encode("ascii", "replace"), np.uint8)
    here, before, after = slice(1, -1), slice(None, -2), slice(2, None)
    digit = framed - np.uint8(ord("0")) < 10  # what is below 0 wraps around
    blank = (framed == ord(" ")) | (framed - np.uint8(ord("\t")) < 5)
    mark = framed == ord(separator)
    sign = (framed == ord("-"))[here] & (blank | mark)[before] & digit[after]
    gap = blank[here]
    if separator == ",":
        gap = (gap & (blank | mark)[before]) | (mark[here] & digit[before])
    return bool(digit[-2] and (digit[here] | gap | sign).all())


def decode_base64(file: EcgFile, field: str, text: str | None) -> bytes:
    """Bytes written in base64. RecordError if there are none, or they are damaged."""
    packed = "".join((text or "").split())
    if not packed:
        raise file.refusal(field, None, "has no samples", remedy=_EXPORT)
    try:
        return binascii.a2b_base64(packed, strict_mode=True)
    except ValueError as error:  # binascii.Error, or characters outside ASCII
        raise file.refusal(field, None, f"is no base64: {error}", remedy=_EXPORT) from None


def stack(file: EcgFile, leads: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Leads of equal length as one array (leads, samples). RecordError if they differ, or none."""
    if not leads:
        raise file.refusal("leads", None, "are missing: the file has no ECG", remedy=_EXPORT)
    lengths = {len(values) for values in leads.values()}
    if len(lengths) > 1:
        shown = ", ".join(f"{lead} {len(values)}" for lead, values in leads.items())
        raise file.refusal("number of samples", shown, "leads differ in length", remedy=_EXPORT)
    signal = np.array(list(leads.values()))
    signal.flags.writeable = False
    return signal


def check_number_of_leads(file: EcgFile, field: str, text: str, leads: Collection[str]) -> None:
    """Refuse a file with fewer leads than `text`, the value of `field`, which may be empty."""
    if text and count(file, field, text) > len(leads):
        reason = f"the file has {len(leads)}: {', '.join(leads)}"
        raise file.refusal(field, text, reason, remedy=_EXPORT)


def add_lead(
    file: EcgFile, leads: dict[str, NDArray[np.float32]], name: str, values: NDArray[np.float64]
) -> None:
    """Add a lead in millivolts. RecordError if it has no name, or the name of another."""
    if not name or name in leads:
        reason = "is there twice" if name else "a lead without a name"
        raise file.refusal("leads", name, reason, remedy=_EXPORT)
    leads[name] = values.astype(np.float32)


# ------------------------------------------------------------------ dates


def date_of(text: str, order: str = "%Y-%m-%d") -> dt.date | None:
    """Date in a text; None if it is none."""
    try:
        return dt.datetime.strptime(text, order).date()
    except ValueError:
        return None


def time_of(text: str) -> dt.time | None:
    """Time of day in a text such as `09:30:00`; None if it is none."""
    try:
        return dt.time.fromisoformat(text)
    except ValueError:
        return None
