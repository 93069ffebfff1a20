"""The 71 SCP-ECG statements of PTB-XL, the simulated ones, and their combinations."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from einthoven.cohorts.synthetic.signs import INFARCTIONS, SIGNS
from einthoven.errors import CohortError


class Statement(NamedTuple):
    """One row of `scp_statements.csv`.

    `groups` holds D (diagnostic), F (form), R (rhythm); class and subclass are empty for codes
    that are not diagnostic.
    """

    groups: str
    superclass: str
    subclass: str
    description: str


_TABLE = """
NDT|DF|STTC|STTC|non-diagnostic T abnormalities
NST_|DF|STTC|NST_|non-specific ST changes
DIG|DF|STTC|STTC|digitalis-effect
LNGQT|DF|STTC|STTC|long QT-interval
NORM|D|NORM|NORM|normal ECG
IMI|D|MI|IMI|inferior myocardial infarction
ASMI|D|MI|AMI|anteroseptal myocardial infarction
LVH|D|HYP|LVH|left ventricular hypertrophy
LAFB|D|CD|LAFB/LPFB|left anterior fascicular block
ISC_|D|STTC|ISC_|non-specific ischemic
IRBBB|D|CD|IRBBB|incomplete right bundle branch block
1AVB|D|CD|_AVB|first degree AV block
IVCD|D|CD|IVCD|non-specific intraventricular conduction disturbance (block)
ISCAL|D|STTC|ISCA|ischemic in anterolateral leads
CRBBB|D|CD|CRBBB|complete right bundle branch block
CLBBB|D|CD|CLBBB|complete left bundle branch block
ILMI|D|MI|IMI|inferolateral myocardial infarction
LAO/LAE|D|HYP|LAO/LAE|left atrial overload/enlargement
AMI|D|MI|AMI|anterior myocardial infarction
ALMI|D|MI|AMI|anterolateral myocardial infarction
ISCIN|D|STTC|ISCI|ischemic in inferior leads
INJAS|D|MI|AMI|subendocardial injury in anteroseptal leads
LMI|D|MI|LMI|lateral myocardial infarction
ISCIL|D|STTC|ISCI|ischemic in inferolateral leads
LPFB|D|CD|LAFB/LPFB|left posterior fascicular block
ISCAS|D|STTC|ISCA|ischemic in anteroseptal leads
INJAL|D|MI|AMI|subendocardial injury in anterolateral leads
ISCLA|D|STTC|ISCA|ischemic in lateral leads
RVH|D|HYP|RVH|right ventricular hypertrophy
ANEUR|D|STTC|STTC|ST-T changes compatible with ventricular aneurysm
RAO/RAE|D|HYP|RAO/RAE|right atrial overload/enlargement
EL|D|STTC|STTC|electrolytic disturbance or drug (former EDIS)
WPW|D|CD|WPW|Wolff-Parkinson-White syndrome
ILBBB|D|CD|ILBBB|incomplete left bundle branch block
IPLMI|D|MI|IMI|inferoposterolateral myocardial infarction
ISCAN|D|STTC|ISCA|ischemic in anterior leads
IPMI|D|MI|IMI|inferoposterior myocardial infarction
SEHYP|D|HYP|SEHYP|septal hypertrophy
INJIN|D|MI|IMI|subendocardial injury in inferior leads
INJLA|D|MI|AMI|subendocardial injury in lateral leads
PMI|D|MI|PMI|posterior myocardial infarction
3AVB|D|CD|_AVB|third degree AV block
INJIL|D|MI|IMI|subendocardial injury in inferolateral leads
2AVB|D|CD|_AVB|second degree AV block
ABQRS|F|||abnormal QRS
PVC|F|||ventricular premature complex
STD_|F|||non-specific ST depression
VCLVH|F|||voltage criteria (QRS) for left ventricular hypertrophy
QWAVE|F|||Q waves present
LOWT|F|||low amplitude T-waves
NT_|F|||non-specific T-wave changes
PAC|F|||atrial premature complex
LPR|F|||prolonged PR interval
INVT|F|||inverted T-waves
LVOLT|F|||low QRS voltages in the frontal and horizontal leads
HVOLT|F|||high QRS voltage
TAB_|F|||T-wave abnormality
STE_|F|||non-specific ST elevation
PRC(S)|F|||premature complex(es)
SR|R|||sinus rhythm
AFIB|R|||atrial fibrillation
STACH|R|||sinus tachycardia
SARRH|R|||sinus arrhythmia
SBRAD|R|||sinus bradycardia
PACE|R|||normal functioning artificial pacemaker
SVARR|R|||supraventricular arrhythmia
BIGU|R|||bigeminal pattern (unknown origin, SV or Ventricular)
AFLT|R|||atrial flutter
SVTAC|R|||supraventricular tachycardia
PSVT|R|||paroxysmal supraventricular tachycardia
TRIGU|R|||trigeminal pattern (unknown origin, SV or Ventricular)
"""

STATEMENTS = {
    code: Statement(*fields)
    for code, *fields in (line.split("|") for line in _TABLE.strip().splitlines())
}

# Exactly one of these is the rhythm of a record.
RHYTHMS = ("SR", "SBRAD", "STACH", "SARRH", "AFIB", "AFLT", "PACE")
_ECTOPY = ("PVC", "PAC", "BIGU")
_BEATS = tuple(SIGNS)

# Pairs (left, right): no code on the left occurs with another code on the right.
_EXCLUSIVE: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (RHYTHMS, RHYTHMS),
    (("NORM",), (*_BEATS, *_ECTOPY, "HVOLT", "STACH", "AFIB", "AFLT", "PACE")),
    (("PACE",), (*_BEATS, *_ECTOPY, "HVOLT")),
    (("AFIB", "AFLT"), ("1AVB", "LAO/LAE", "WPW", "PAC", "BIGU")),
    (("PVC",), ("PAC", "AFLT")),
    (("STACH",), ("1AVB", "LNGQT", "BIGU")),
    (("SARRH",), ("BIGU",)),
    (("LVH", "HVOLT", "LVOLT"), ("LVH", "HVOLT", "LVOLT")),
    (("LVOLT",), ("PVC", "BIGU", "CLBBB", "WPW")),
    (("CLBBB", "WPW"), tuple(code for code in _BEATS if code not in ("1AVB", "LAO/LAE"))),
    (("WPW",), ("1AVB", "LAO/LAE")),
    (("CRBBB", "IRBBB"), ("CRBBB", "IRBBB", "LVH", "AMI", "ABQRS", "QWAVE")),
    (("LAFB",), ("IMI", "AMI", "IRBBB", "QWAVE", "ABQRS")),
    (("ABQRS",), ("ASMI", "IMI", "AMI", "QWAVE")),
    (("AMI",), ("ASMI", "IMI")),
    (
        ("ISC_", "ISCAL", "STD_", "INVT", "NDT", "LNGQT"),
        ("ISC_", "ISCAL", "STD_", "INVT", "NDT", "LNGQT", "LVH", "CRBBB", "ASMI", "IMI", "AMI"),
    ),
)


def statements_made() -> tuple[str, ...]:
    """SCP codes that the simulator can produce, sorted by code point."""
    return tuple(sorted({"NORM", "HVOLT", *RHYTHMS, *_ECTOPY, *_BEATS}))


def compatible(codes: Collection[str]) -> bool:
    """Whether statements can be true of one ECG."""
    return _contradiction(frozenset(codes)) is None


def _contradiction(codes: frozenset[str]) -> tuple[str, str] | None:
    if codes.intersection(INFARCTIONS):
        codes -= {"QWAVE"}  # implied by the infarction, with the same exclusions
    for left, right in _EXCLUSIVE:
        for one in sorted(codes.intersection(left)):
            for other in sorted(codes.intersection(right) - {one}):
                return one, other
    return None


def completed(codes: Collection[str]) -> tuple[str, ...]:
    """Statements with those that follow from them, the diagnoses first, the rhythm last.

    A rhythm is added if there is none, PVC to a bigeminy of unknown kind, QWAVE to an infarction.
    """
    full = set(codes)
    if not full.intersection(RHYTHMS):
        full.add("SR")
    if "BIGU" in full and not full & {"PVC", "PAC"}:
        full.add("PVC")
    if full.intersection(INFARCTIONS):
        full.add("QWAVE")
    return tuple(code for code in STATEMENTS if code in full)


def consistent(codes: Collection[str]) -> tuple[str, ...]:
    """Check statements and complete them.

    Raises
    ------
    CohortError
        For a code that cannot be made, or two that exclude each other.
    """
    unknown = sorted(set(codes) - set(statements_made()))
    if unknown:
        raise CohortError(
            f"statement {unknown[0]!r} cannot be simulated",
            remedy=f"choose among: {' '.join(statements_made())}",
        )
    clash = _contradiction(frozenset(codes))
    if clash:
        raise CohortError(
            f"statements {clash[0]} and {clash[1]} cannot be true of one ECG",
            remedy="leave one of them out",
        )
    return completed(codes)
