"""Labels from reports: phrases, scopes of negation and uncertainty, hierarchy, tables, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.cohorts.report_labels import LONGEST, label_reports, read_reports
from einthoven.cohorts.report_patterns import Patterns, load_patterns, shipped_patterns, spelt
from einthoven.errors import CohortError

TREE = """
extends = "english"
[labels.BBB]
patterns = ['bundle branch block']
[labels.LBBB]
patterns = ['left bundle branch block', 'lbbb']
unless = ['incomplete (?:left bundle branch block|lbbb)']
implies = ["BBB"]
[labels.CLBBB]
patterns = ['complete (?:left bundle branch block|lbbb)']
unless = ['incomplete \\w+']
implies = ["LBBB"]
[labels.AFIB]
patterns = ['atrial fibrillation', 'a-?fib']
[labels.MI]
patterns = ['infarct\\w*']
"""


@pytest.fixture
def tree(tmp_path: Path) -> Patterns:
    (tmp_path / "tree.toml").write_text(TREE)
    return load_patterns(tmp_path / "tree.toml")


def states(patterns: Patterns, *lines: str) -> dict[str, str]:
    """State of every label that a report mentions."""
    table = pd.DataFrame([dict(enumerate(lines))]).rename(columns="report_{}".format)
    return dict(label_reports(table, patterns).phrases[["label", "state"]].itertuples(index=False))


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("Atrial Fibrillation.", "positive"),
        ("AFib with rapid rate", "positive"),
        ("no atrial fibrillation", "negated"),
        ("There is no evidence of acute atrial fibrillation", "negated"),
        ("atrial fibrillation has been ruled out", "negated"),
        ("atrial fibrillation is no longer present", "negated"),
        ("possible atrial fibrillation", "uncertain"),
        ("cannot rule out atrial fibrillation", "uncertain"),
        ("atrial fibrillation cannot be excluded", "uncertain"),
        ("Probable infarct. Atrial fibrillation", "positive"),
        ("no infarct, atrial fibrillation", "positive"),
        ("no infarct but atrial fibrillation", "positive"),
        ("no infarct or atrial fibrillation", "negated"),
        ("no infarct atrial fibrillation", "positive"),
        ("infarct and atrial fibrillation cannot be excluded", "uncertain"),
        ("no change in rate since then of the known atrial fibrillation", "positive"),
        ("no one two three four five six seven atrial fibrillation", "positive"),
        ("no previous ECG atrial fibrillation", "positive"),
        ("no possible atrial fibrillation", "negated"),
    ],
)
def test_scope_of_negation_and_uncertainty(tree: Patterns, line: str, state: str) -> None:
    assert states(tree, line)["AFIB"] == state


def test_words_are_whole(tree: Patterns) -> None:
    assert states(tree, "infarction afibx lbbbs") == {"MI": "positive"}


def test_hierarchy_and_exclusions(tree: Patterns) -> None:
    assert states(tree, "complete LBBB") == dict.fromkeys(("CLBBB", "LBBB", "BBB"), "positive")
    assert states(tree, "possible LBBB") == {"LBBB": "uncertain", "BBB": "uncertain"}
    assert states(tree, "no LBBB", "AFib") == {"LBBB": "negated", "AFIB": "positive"}
    assert states(tree, "incomplete left bundle branch block") == {"BBB": "positive"}
    assert states(tree, "possible LBBB", "bundle branch block")["BBB"] == "positive"
    assert states(tree, "no infarct", "possible infarct")["MI"] == "uncertain"
    assert states(tree, "infarct", "no infarct")["MI"] == "positive"


def test_cues_need_their_label(tree: Patterns) -> None:
    with pytest.raises(CohortError, match="report_0"):
        states(tree, "no abnormality")


REPORTS = pd.DataFrame(
    {
        "path": ["a.dat", "b.dat", "c.dat", "d.dat"],
        "patient": ["007", "007", "8", "9"],
        "rr": [800, 900, 1000, 1100],
        "report_0": ["possible atrial fibrillation", "No infarct", None, "Left axis deviation"],
        "report_10": ["Infarct", "LBBB.", " ", "Left axis deviation"],
        "report_2": ["Infarct", None, None, "Clockwise rotation"],
    }
)


def test_table(tree: Patterns) -> None:
    found = label_reports(REPORTS, tree, uncertain="unknown")
    assert list(found.table) == ["path", "patient", "BBB", "LBBB", "CLBBB", "AFIB", "MI"]
    assert found.table["AFIB"].isna().tolist() == [True, False, True, False]
    assert found.table.iloc[1, 2:].tolist() == [1, 1, 0, 0, 0]
    assert found.table.iloc[2, 2:].isna().all()
    assert found.table.iloc[3, 2:].tolist() == [0] * 5
    assert (found.texts, found.without_match) == (3, 1)
    assert found.counts.loc["AFIB"].to_dict() == {"positive": 0, "uncertain": 1, "negated": 0}
    assert found.counts.loc["MI"].to_dict() == {"positive": 1, "uncertain": 0, "negated": 1}
    assert found.phrases[["path", "label"]].to_numpy().tolist() == [
        ["a.dat", "AFIB"], ["a.dat", "MI"], ["b.dat", "MI"], ["b.dat", "LBBB"], ["b.dat", "BBB"],
    ]  # fmt: skip
    uncertain = found.phrases.set_index("label").loc["AFIB"]
    assert (uncertain["phrase"], uncertain["cue"]) == ("atrial fibrillation", "possible")
    assert found.unmatched.to_dict("list") == {
        "phrase": ["clockwise rotation", "left axis deviation"], "records": [1, 1],
    }  # fmt: skip


@pytest.mark.parametrize(("uncertain", "value"), [("positive", 1), ("negative", 0), (None, 1)])
def test_meaning_of_uncertain(tree: Patterns, uncertain: str | None, value: int) -> None:
    assert label_reports(REPORTS, tree, uncertain=uncertain).table["AFIB"][0] == value


def test_columns_of_text(tree: Patterns) -> None:
    found = label_reports(REPORTS.assign(note="AFib"), tree, columns=["note"])
    assert found.table["AFIB"].tolist() == [1] * 4
    report = label_reports(pd.DataFrame({"report": ["AFib"], "text": ["LBBB"]}), tree)
    assert report.phrases.to_dict("list")["label"] == ["AFIB"]
    assert report.phrases["row"].tolist() == [1]


def test_spelling() -> None:
    assert spelt("Sinus   rhythm\r\nQ waves\n  in II") == ["sinus rhythm", "q waves in ii"]
    assert spelt("Verl&auml;ngerung &amp;uuml;ber<br>ST &lt; 1") == [
        "verlaengerung ueber",
        "st < 1",
    ]
    for text in ("ÜBER", "über", "u\u0308ber", "ueber", "&Uuml;ber"):
        assert spelt(text) == ["ueber"]
    assert spelt("straße å é") == ["strasse a e"]
    assert spelt(" <br/> ") == []


def test_umlauts_in_patterns(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        "[labels.RSB]\npatterns = ['unvollst[äa]\\w* block', 'Übel']\n"
    )
    patterns = load_patterns(tmp_path / "p.toml")
    for text in ("unvollständiger Block", "UNVOLLSTAENDIGER BLOCK", "übel", "Uebel"):
        assert states(patterns, text) == {"RSB": "positive"}


FILES = {name: load_patterns(name) for name in shipped_patterns()}
SHIPPED: list[tuple[str, str, dict[str, str]]] = [
    ("ecg-fm", "Sinus rhythm with 1st degree A-V block", {
        "Sinus rhythm": "positive", "1st degree atrioventricular block": "positive",
        "Atrioventricular block": "positive"}),
    ("ecg-fm", "Supraventricular tachycardia with aberrancy", {
        "Tachycardia": "positive", "Supraventricular tachycardia with aberrancy": "positive"}),
    ("ecg-fm", "Wide complex ventricular tachycardia", {
        "Tachycardia": "positive", "Ventricular tachycardia": "positive"}),
    ("ecg-fm", "Incomplete right bundle branch block", {}),
    ("ecg-fm", "RBBB with left anterior fascicular block", {
        "Right bundle branch block": "positive", "Bifascicular block": "positive"}),
    ("ecg-fm", "Possible anterior infarct - age undetermined", {"Infarction": "uncertain"}),
    ("ecg-fm", "Inferior infarct - possible acute", {"Infarction": "positive"}),
    ("ecg-fm", "Ventricular pacing", {"Electronic pacemaker": "positive"}),
    ("ecg-fm", "--- Warning: Data quality may affect interpretation ---", {
        "Poor data quality": "positive"}),
    ("ecg-fm", "Ventricular premature complexes", {
        "Premature ventricular contraction": "positive"}),
    ("scp-english", "Otherwise normal ECG", {"NORM": "positive"}),
    ("scp-english", "Abnormal ECG. Complete heart block", {"3AVB": "positive"}),
    ("scp-english", "Voltage criteria for LVH", {"VCLVH": "positive"}),
    ("scp-english", "ST segments are depressed. This may be due to LV strain or ischaemia", {
        "STD_": "positive", "ISC_": "uncertain"}),
    ("scp-english", "No previous ECG available; LBBB, probably a normal variant", {
        "CLBBB": "positive"}),
    ("scp-english", "Wandering pacemaker", {"SVARR": "positive"}),
    ("ptb-xl", "Sinusrhythmus unvollst&auml;ndiger Rechtsschenkelblock", {
        "SR": "positive", "IRBBB": "positive"}),
    ("ptb-xl", "vorhofflimmern, av-block i. grades", {"AFIB": "positive", "1AVB": "positive"}),
    ("ptb-xl", "anterolateraler infarkt möglich", {"ALMI": "uncertain"}),
    ("ptb-xl", "inferiorer infarkt     wahrscheinlich alt", {"IMI": "positive"}),
    ("ptb-xl", "septaler infarkt nicht auszuschliessen", {"ASMI": "uncertain"}),
    ("ptb-xl", "kein Anhalt für Vorhofflimmern, Sinusrhythmus", {
        "AFIB": "negated", "SR": "positive"}),
    ("ptb-xl", "sinusrytm inferior infarkt kan ej uteslutas", {
        "SR": "positive", "IMI": "uncertain"}),
    ("ptb-xl", "supraventrikuläre extrasystole(n)", {"PAC": "positive"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "line", "expected"), SHIPPED)
def test_shipped_patterns(name: str, line: str, expected: dict[str, str]) -> None:
    patterns = FILES[name]
    hits = [hit for text in spelt(line) for hit in patterns.read(text)[0]]
    found = {
        label: hit.state for hit in hits for label in (hit.label, *patterns.implied[hit.label])
    }
    assert found == expected


def test_labels_of_shipped_patterns() -> None:
    sizes = {name: len(patterns.labels) for name, patterns in FILES.items()}
    assert sizes == {"ecg-fm": 17, "ptb-xl": 71, "scp-english": 71}
    names = [label.name for label in FILES["scp-english"].labels]
    assert set(names) == {label.name for label in FILES["ptb-xl"].labels}


WORDS = st.sampled_from(
    ["no ", "st ", "infarkt ", "wave", " a", "q", "-", "/", "(", ".", "ä", "\n"]
)


@given(st.lists(WORDS, max_size=300).map("".join) | st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    for line in spelt(text):
        hits, rest = FILES["ptb-xl"].read(line)
        assert all(hit.phrase in line and hit.cue in line for hit in hits)
        assert all(part in line for part in rest)


@pytest.mark.parametrize(
    "text", ["a" * LONGEST, "no " * 3000, "no inferior infarct " * 500, "(" * LONGEST]
)
def test_long_lines_end(text: str) -> None:
    """With unbounded repetitions, these would take minutes."""
    assert isinstance(FILES["ptb-xl"].read(text)[0], list)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("patterns = ['(a+)+b']", "(a+)+b"),
        ("patterns = ['(?:a|b){2}']", "(?:a|b){2}"),
        ("patterns = ['a*b*c*d*']", "a*b*c*d*"),
        ("patterns = ['a{100}']", "a{100}"),
        ("patterns = ['a?a?a?a?a?a?a?a?a?a?a?a?a?']", "a?a?"),
        ("patterns = ['(']", "'('"),
        ("patterns = ['x*']", "x*"),
        ("patterns = ['x']\nimplies = ['Y']", "'Y'"),
        ("patterns = ['x']\nimplies = ['X']", "X -> X"),
        ("patterns = ['x']\nunles = ['Y']", "unles"),
        ("patterns = 'x'", "patterns"),
        ("patterns = []", "'X'"),
        ("patterns = ['x{}y']", "x{}y"),
        ("", "patterns"),
    ],
)
def test_pattern_files_that_are_refused(tmp_path: Path, text: str, value: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(f"[labels.X]\n{text}\n")
    with pytest.raises(CohortError) as refusal:
        load_patterns(file)
    assert str(file) in refusal.value.problem
    assert value in refusal.value.problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scope = 'far'",
        "labels = 3",
        "[label.X]\npatterns = ['x']",
        "[labels.patient]\npatterns = ['x']",
        "extends = 'p.toml'",
        "extends = '../here/p.toml'",
        "extends = 3",
        "extends = [3]",
        "extends = 'nowhere'",
        "uncertain = 'maybe'\n[labels.X]\npatterns = ['x']",
        "negation = 'no'\n[labels.X]\npatterns = ['x']",
        "[labels",
    ],
)
def test_files_that_are_no_pattern_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "here" / "p.toml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(CohortError):
        load_patterns(file)


def test_extension_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("scope = 3\n[labels.A]\npatterns = ['a']\n")
    (tmp_path / "own.toml").write_text(
        "extends = ['base.toml', 'english']\nscope = 2\n"
        "[labels.A]\npatterns = ['b']\n[labels.C]\npatterns = ['c']\n"
    )
    patterns = load_patterns(tmp_path / "own.toml")
    assert patterns.scope == 2
    assert [(label.name, label.patterns) for label in patterns.labels] == [
        ("A", ("a", "b")),
        ("C", ("c",)),
    ]
    assert patterns.negation.before == FILES["scp-english"].negation.before


def test_reports_that_are_refused(tree: Patterns) -> None:
    refused: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"note": ["AFib"]}, {}),
        ({"report": ["AFib"]}, {"columns": ["text"]}),
        ({"report": ["AFib"]}, {"uncertain": "maybe"}),
        ({"report": ["AFib " * LONGEST]}, {}),
        ({"report": ["Vorhofflimmern"]}, {}),
        ({"report": [None]}, {}),
    ]
    for columns, options in refused:
        with pytest.raises(CohortError):
            label_reports(pd.DataFrame(columns), tree, **options)


def test_published_tables(tmp_path: Path) -> None:
    file = tmp_path / "machine_measurements.csv"
    file.write_text("subject_id,study_id,report_0\n7,41,AFib\n8,42,\n")
    assert list(read_reports(file)) == ["patient", "record", "report_0"]
    (tmp_path / "record_list.csv").write_text("study_id,path\n42,p/42\n41,p/41\n")
    assert read_reports(file)["path"].tolist() == ["p/41", "p/42"]
    file.write_text("ecg_id,patient_id,strat_fold,filename_lr,report\n1,5.0,3,records100/1,AFib\n")
    assert set(read_reports(file)) == {"record", "patient", "fold", "path", "report"}
    file.write_text("ecg_id,filename_lr,filename_hr,report\n1,l/1,h/1,AFib\n")
    assert read_reports(file)["path"].tolist() == ["l/1"]
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "1.hea").touch()
    assert read_reports(file)["path"].tolist() == ["h/1"]
