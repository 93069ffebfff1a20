"""What the readers of XML formats have in common: parsing, refusals, numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from xml_files import STANDARD, aecg, cardiosoft, counts_of, muse, philips

from einthoven.errors import RecordError
from einthoven.records import EcgFile, read_record, xml

COUNTS = counts_of(STANDARD)
AECG = aecg(COUNTS)
TEXTS = {
    "HL7 aECG": AECG,
    "GE MUSE": muse(COUNTS[[0, 1, *range(6, 12)]]),
    "GE CardioSoft": cardiosoft(COUNTS),
    "Philips Sierra": philips(COUNTS),
}
every_format = pytest.mark.parametrize("name", TEXTS)


def refusal(data: bytes | str) -> RecordError:
    content = data.encode() if isinstance(data, str) else data
    with pytest.raises(RecordError) as caught:
        xml.parse(EcgFile("ecg.xml", data=content), "HL7 aECG")
    return caught.value


# ------------------------------------------------------------------ root element


@every_format
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_an_encoding_as_declared(name: str, encoding: str) -> None:
    declared = encoding.replace("-sig", "").replace("latin-1", "ISO-8859-1")
    body = TEXTS[name].split("?>", 1)[1].replace("0017", "Jürgen").replace("P-7", "Jürgen")
    data = f'<?xml version="1.0" encoding="{declared}"?>{body}'.encode(encoding)
    assert xml.format_name(data[:4096]) == name
    record = read_record(data)
    assert record.patient == "Jürgen"
    np.testing.assert_array_equal(record.signal, read_record(TEXTS[name].encode()).signal)


def test_another_encoding_than_declared_is_refused() -> None:
    assert "XML" in refusal(AECG.replace("P-7", "Jürgen").encode("latin-1")).field


@every_format
def test_recognition_does_not_need_the_suffix(name: str, tmp_path: Path) -> None:
    (tmp_path / "export").write_text("\n" + TEXTS[name].replace("?>", "?><!-- <a> -->", 1))
    assert read_record(tmp_path / "export").leads[0] == "I"


def test_a_namespace_may_have_a_prefix_or_be_absent() -> None:
    bare = AECG.replace(' xmlns="urn:hl7-org:v3"', "")
    assert xml.format_name(bare.encode()[:4096]) == "HL7 aECG"
    prefixed = bare.replace("</", "@").replace("<", "<h:").replace("@", "</h:")
    prefixed = prefixed.replace("<h:?", "<?").replace("ECG>", 'ECG xmlns:h="urn:hl7-org:v3">', 1)
    for text in (bare, prefixed):
        np.testing.assert_array_equal(
            read_record(text.encode()).signal, read_record(AECG.encode()).signal
        )


@pytest.mark.parametrize(
    "head",
    [b"", b"<", b"<?xml", b"<html><RestingECG/>", b"RestingECG", b"<a:RestingECG>", b"\xff\xfe<"],
)
def test_anything_else_is_not_recognised(head: bytes) -> None:
    assert xml.format_name(head) == ""


def test_a_root_of_another_standard_is_not_recognised() -> None:
    assert xml.format_name(b'<AnnotatedECG xmlns="urn:other">') == ""


def test_an_unknown_root_is_refused_with_the_known_formats(tmp_path: Path) -> None:
    (tmp_path / "page.xml").write_text("<html><body/></html>")
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "page.xml")
    assert (caught.value.field, caught.value.value) == ("root element", "html")
    assert all(name in str(caught.value) for name in TEXTS)


def test_a_root_behind_long_comments(tmp_path: Path) -> None:
    text = TEXTS["GE MUSE"].replace("?>", f"?><!-- {'x' * 5000} -->", 1)
    (tmp_path / "ecg.xml").write_text(text)
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "ecg.xml")
    assert (caught.value.field, caught.value.value) == ("root element", "RestingECG")
    assert "GE CardioSoft" not in str(caught.value)


# ------------------------------------------------------------------ attacks


LAUGHS = "".join(
    f'<!ENTITY a{level} "{f"&a{level - 1};" * 10 if level else "ha"}">' for level in range(10)
)


@pytest.mark.parametrize(
    ("document_type", "content"),
    [
        ("<!DOCTYPE AnnotatedECG [" + LAUGHS + "]>", "&a9;"),
        ('<!DOCTYPE AnnotatedECG [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "&a;"),
        ('<!DOCTYPE AnnotatedECG [<!ENTITY % a SYSTEM "http://e.org/a"> %a;]>', ""),
        ("<!DOCTYPE AnnotatedECG [<!ELEMENT AnnotatedECG ANY>]>", ""),
        ('<!DOCTYPE AnnotatedECG SYSTEM "ecg.dtd">', "&a;"),
    ],
)
def test_declarations_and_entities_are_refused(document_type: str, content: str) -> None:
    text = AECG.replace("<AnnotatedECG", f"{document_type}<AnnotatedECG", 1)
    text = text.replace("<digits>", f"<digits>{content}", 1)
    assert refusal(text).field == "XML"
    with pytest.raises(RecordError):
        read_record(text.encode())


def test_a_document_type_alone_is_accepted_and_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "restecg.dtd").write_text('<!ENTITY b "1"><!ATTLIST RestingECG a CDATA "1">')
    assert "restecg.dtd" in TEXTS["GE MUSE"]
    root = xml.parse(EcgFile("ecg.xml", data=TEXTS["GE MUSE"].encode()), "GE MUSE")
    assert root.attrib == {}


@pytest.mark.parametrize("text", ["<b/>" * 600_000, "<b " + 'a="1" ' * 600_000 + "/>"])
def test_elements_and_attributes_are_bounded(text: str) -> None:
    assert refusal(f"<AnnotatedECG>{text}</AnnotatedECG>").field == "XML"


def test_elements_may_be_nested_as_deeply_as_they_are_many() -> None:
    text = "<b>" * 200_000 + "</b>" * 200_000
    assert refusal(text).field == "root element"


def test_the_size_is_bounded_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xml, "_LARGEST", 1000)
    (tmp_path / "ecg.xml").write_text(AECG)
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "ecg.xml")
    assert (caught.value.field, caught.value.value) == ("size", len(AECG))


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff\xfe", b"\0\0\0", b"<AnnotatedECG>"])
def test_empty_and_unfinished_files(data: bytes) -> None:
    refusal(data)


# ------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("separator", "pattern"), [(" ", r"-?\d+(\s+-?\d+)*"), (",", r"-?\d+(\s*,\s*-?\d+)*")]
)
def test_whatever_is_read_are_numbers_one_after_the_other(separator: str, pattern: str) -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("0127-- \n,"))
    read = 0
    for text in ("".join(rng.choice(letters, 6)) for _ in range(4000)):
        stripped = text.strip().rstrip(separator)
        try:
            values = xml.samples(EcgFile("a"), "digits", text, separator)
        except RecordError:
            assert not re.fullmatch(pattern, stripped)
        else:
            assert re.fullmatch(pattern, stripped)
            assert values.tolist() == [int(x) for x in re.findall(r"-?\d+", stripped)]
            read += 1
    assert read > 100


@pytest.mark.parametrize(
    ("text", "separator", "values"),
    [
        ("1 -2\n\t+3", " ", [1, -2, 3]),
        (" 1 ", " ", [1]),
        ("1,-2 ,\n3,", ",", [1, -2, 3]),
        ("0.5 .5 5. 1e2", " ", [0.5, 0.5, 5, 100]),
        ("007 0", " ", [7, 0]),
    ],
)
def test_samples(text: str, separator: str, values: list[float]) -> None:
    read = xml.samples(EcgFile("a"), "digits", text, separator)
    assert read.tolist() == values
    assert read.dtype == np.float64


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", None, "1 x", "1_0", "nan", "inf", "1 -inf", "0x1", "1-2", "--1", "1,5", "1..2"),
        *("٣", "1e999", "9" * 18, "9" * 5000, "1e", "1 . 2", "-", "1\x000"),
    ],
)
def test_anything_but_numbers_is_refused(text: str | None) -> None:
    with pytest.raises(RecordError) as caught:
        xml.samples(EcgFile("a"), "digits", text)
    assert caught.value.field == "digits"


@pytest.mark.parametrize("text", ["1 2", "1,,2", ",1", "1;2"])
def test_a_comma_is_between_two_numbers(text: str) -> None:
    with pytest.raises(RecordError):
        xml.samples(EcgFile("a"), "digits", text, ",")


@pytest.mark.parametrize(
    "text", ["", "x", "5,0", "1e999", "1e38", "1e-320", "nan", "1_0", "0", "-5", "5 uV"]
)
def test_a_number_that_a_file_has_to_state(text: str) -> None:
    with pytest.raises(RecordError) as caught:
        xml.number(EcgFile("a"), "scale", text, positive=True)
    assert caught.value.field == "scale"


@pytest.mark.parametrize("text", ["AQ", "A===", "AQA=A", "ÄÖ==", "", None, "AQ==AQ=="])
def test_damaged_base64_is_refused(text: str | None) -> None:
    with pytest.raises(RecordError):
        xml.decode_base64(EcgFile("a"), "data", text)
