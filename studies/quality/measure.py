"""Share of faults that are found in records of PTB-XL's fold 10, and of findings without a fault.

    python studies/quality/measure.py --cohort data/ptb-xl --store data/ptb-xl.store

Each fault is made from the same random records of the fold. The table is Markdown.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from einthoven.cohorts import open_cohort
from einthoven.records import STANDARD_LEADS, Record
from einthoven.records.limb_leads import derive_limb_leads
from einthoven.records.quality import findings
from einthoven.signals.store import Store

Signal = NDArray[np.float32]
Fault = Callable[[Signal, int], Signal]
"""Function of a signal, (leads, samples) in mV, which it may change, and of a second's samples."""

LEADS = {lead: row for row, lead in enumerate(STANDARD_LEADS)}


def scaled(factor: float) -> Fault:
    return lambda x, second: x * np.float32(factor)


def names_exchanged(one: str, other: str) -> Fault:
    def fault(x: Signal, second: int) -> Signal:
        x[[LEADS[one], LEADS[other]]] = x[[LEADS[other], LEADS[one]]]
        return x

    return fault


def electrodes_exchanged(right: str, left: str, foot: str) -> Fault:
    """Where the wires of right arm, left arm and foot are: RA, LA, LL, or RL for the right leg."""

    def fault(x: Signal, second: int) -> Signal:
        noise = np.random.default_rng(0).normal(0, 0.01, x.shape[1]).astype(x.dtype)
        potential = {"RA": 0 * x[0], "LA": x[0], "LL": x[1], "RL": x[1] + noise}
        one, two = potential[left] - potential[right], potential[foot] - potential[right]
        centre = (potential["LA"] + potential["LL"]) / 3
        shift = centre - (potential[left] + potential[right] + potential[foot]) / 3
        limb = Record.create(np.stack([one, two]), 100.0, leads=("I", "II"), name="")
        limb = derive_limb_leads(limb).select(STANDARD_LEADS[:6])
        return np.concatenate([limb.signal, x[6:] + shift])

    return fault


def inverted(lead: str) -> Fault:
    def fault(x: Signal, second: int) -> Signal:
        x[LEADS[lead]] *= -1
        return x

    return fault


def all_inverted(x: Signal, second: int) -> Signal:
    return -x


def backwards(x: Signal, second: int) -> Signal:
    return x[:, ::-1]


def tenth(lead: str) -> Fault:
    def fault(x: Signal, second: int) -> Signal:
        x[LEADS[lead]] *= np.float32(0.1)
        return x

    return fault


def unchanged(x: Signal, second: int) -> Signal:
    return x


def reversed_chest(x: Signal, second: int) -> Signal:
    x[6:] = x[:5:-1].copy()
    return x


def zeros(start: float, stop: float) -> Fault:
    def fault(x: Signal, second: int) -> Signal:
        x[:, round(start * second) : round(stop * second)] = 0
        return x

    return fault


def held(x: Signal, second: int) -> Signal:
    x[:, 7 * second :] = x[:, 7 * second, None]
    return x


def held_in_parts(seconds: float, times: int, rows: slice = slice(None)) -> Fault:
    def fault(x: Signal, second: int) -> Signal:
        for start in np.linspace(0, x.shape[1] - seconds * second, times).astype(int):
            x[rows, start : start + round(seconds * second)] = x[rows, start : start + 1]
        return x

    return fault


def lead_off(x: Signal, second: int) -> Signal:
    x[7, 3 * second : 6 * second] = 0
    return x


def noise_instead(
    start: float, stop: float, rows: slice = slice(None), size: float = 0.005
) -> Fault:
    def fault(x: Signal, second: int) -> Signal:
        part = x[rows, round(start * second) : round(stop * second)]
        part[:] = np.random.default_rng(0).normal(0, size, part.shape)
        return x

    return fault


def zeroed(
    share: float, seconds: float, together: bool = False, rows: slice = slice(None)
) -> Fault:
    """Zeros at random in blocks; of a sample each if `seconds` is 0."""

    def fault(x: Signal, second: int) -> Signal:
        block = max(1, round(seconds * second))
        shape = (1 if together else len(x), x.shape[1] // block + 1)
        lost = np.repeat(np.random.default_rng(0).random(shape) < share, block, axis=1)
        x[rows] = np.where(np.broadcast_to(lost[:, : x.shape[1]], x.shape), 0, x)[rows]
        return x

    return fault


def only_mains(x: Signal, second: int) -> Signal:
    x[7] = 0.1 * np.sin(2 * np.pi * 50 * np.arange(x.shape[1]) / second + 1)
    return x


def nearly_copied(x: Signal, second: int) -> Signal:
    x[8] = x[7] + np.random.default_rng(0).normal(0, 0.001, x.shape[1])
    return x


def multiple(row: int, of: int, factor: float) -> Fault:
    """A lead that is a multiple of another, rounded to 1 uV."""

    def fault(x: Signal, second: int) -> Signal:
        x[row] = np.round(factor * x[of], 3)
        return x

    return fault


def same_lead(x: Signal, second: int) -> Signal:
    return np.repeat(x[1:2], len(x), axis=0)


def clipped(x: Signal, second: int) -> Signal:
    limit = 0.6 * np.abs(x).max(axis=1, keepdims=True)
    return np.clip(x, -limit, limit)


def wandering(x: Signal, second: int) -> Signal:
    return x + np.float32(1.0) * np.sin(0.4 * np.pi * np.arange(x.shape[1]) / second, dtype=x.dtype)


def noisy(x: Signal, second: int) -> Signal:
    return x + np.random.default_rng(0).normal(0, 0.1, x.shape).astype(x.dtype)


FAULTS: dict[str, tuple[str, Fault, tuple[str, ...]]] = {
    "second half zeros": ("no-signal", zeros(5, 10), ()),
    "zeros for 0.6 s": ("no-signal", zeros(4, 4.6), ()),
    "last value held for 3 s": ("no-signal", held, ()),
    "second half noise of 5 uV": ("no-signal", noise_instead(5, 10), ()),
    "noise of 20 uV for 3 s": ("no-signal", noise_instead(4, 7, size=0.02), ()),
    "values held for 0.48 s, 10 times": ("no-signal", held_in_parts(0.48, 10), ()),
    "values held for 0.1 s, 8 times": ("no-signal", held_in_parts(0.1, 8), ()),
    "V2 held for 0.4 s, 4 times": ("lead-off", held_in_parts(0.4, 4, slice(7, 8)), ("V2",)),
    "V2 at zero for 3 s": ("lead-off", lead_off, ()),
    "V2 half noise of 5 uV": ("lead-off", noise_instead(5, 10, slice(7, 8)), ("V2",)),
    "V2 nothing but noise of 5 uV": ("lead-off", noise_instead(0, 10, slice(7, 8)), ("V2",)),
    "V2 nothing but mains of 0.1 mV": ("lead-off", only_mains, ("V2",)),
    "5 % of samples zero": ("dropouts", zeroed(0.05, 0), ()),
    "20 % of samples zero": ("dropouts", zeroed(0.2, 0), ()),
    "5 % of samples zero in all leads at once": ("dropouts", zeroed(0.05, 0, together=True), ()),
    "5 % zero in blocks of 50 ms": ("dropouts", zeroed(0.05, 0.05), ()),
    "20 % zero in blocks of 0.2 s": ("dropouts", zeroed(0.2, 0.2), ()),
    "5 % of V2's samples zero": ("dropouts", zeroed(0.05, 0, rows=slice(7, 8)), ("V2",)),
    "all leads clipped at 0.6 of their maximum": ("clipping", clipped, ()),
    "1,000 times too large": ("unit", scaled(1000), ()),
    "10 times too large": ("amplitude", scaled(10), ()),
    "5 times too large": ("amplitude", scaled(5), ()),
    "5 times too small": ("amplitude", scaled(0.2), ()),
    "10 times too small": ("amplitude", scaled(0.1), ()),
    "1,000 times too small": ("unit", scaled(0.001), ()),
    "names of aVR and aVL exchanged": ("limb-leads", names_exchanged("aVR", "aVL"), ("aVR", "aVL")),
    "names of aVL and aVF exchanged": ("limb-leads", names_exchanged("aVL", "aVF"), ("aVL", "aVF")),
    "names of I and II exchanged": ("limb-leads", names_exchanged("I", "II"), ("I", "II")),
    "III inverted": ("limb-leads", inverted("III"), ("III",)),
    "the same lead twelve times": ("identical-leads", same_lead, ()),
    "V3 a copy of V2 with noise of 1 uV": ("identical-leads", nearly_copied, ("V2", "V3")),
    "V2 1.3 times V1": ("identical-leads", multiple(7, 6, 1.3), ("V1", "V2")),
    "V5 0.8 times V4": ("identical-leads", multiple(10, 9, 0.8), ("V4", "V5")),
    "right and left arm": ("electrodes", electrodes_exchanged("LA", "RA", "LL"), ()),
    "right arm and left leg": ("electrodes", electrodes_exchanged("LL", "LA", "RA"), ()),
    "left arm and left leg": ("electrodes", electrodes_exchanged("RA", "LL", "LA"), ()),
    "arms and left leg in turn": ("electrodes", electrodes_exchanged("LL", "RA", "LA"), ()),
    "right arm and right leg": ("electrodes", electrodes_exchanged("RL", "LA", "LL"), ()),
    "left arm and right leg": ("electrodes", electrodes_exchanged("RA", "RL", "LL"), ()),
    "V1 and V2": ("electrodes", names_exchanged("V1", "V2"), ("V1", "V2")),
    "V2 and V3": ("electrodes", names_exchanged("V2", "V3"), ("V2", "V3")),
    "V3 and V4": ("electrodes", names_exchanged("V3", "V4"), ("V3", "V4")),
    "V4 and V5": ("electrodes", names_exchanged("V4", "V5"), ("V4", "V5")),
    "V5 and V6": ("electrodes", names_exchanged("V5", "V6"), ("V5", "V6")),
    "V1 and V3": ("electrodes", names_exchanged("V1", "V3"), ("V1", "V3")),
    "V1 and V6": ("electrodes", names_exchanged("V1", "V6"), ("V1", "V6")),
    "V1 to V6 reversed": ("electrodes", reversed_chest, ()),
    "V1 inverted": ("electrodes", inverted("V1"), ("V1",)),
    "V4 inverted": ("electrodes", inverted("V4"), ("V4",)),
    "V1 ten times too small": ("electrodes", tenth("V1"), ("V1",)),
    "V3 ten times too small": ("electrodes", tenth("V3"), ("V3",)),
    "V6 ten times too small": ("electrodes", tenth("V6"), ("V6",)),
    "all leads inverted": ("beats", all_inverted, ()),
    "time reversed": ("beats", backwards, ()),
    "rate declared twice as high": ("beats", unchanged, ()),
    "rate declared half as high": ("beats", unchanged, ()),
    "wander of 2 mV at 0.2 Hz in all leads": ("baseline-wander", wandering, ()),
    "white noise of 0.1 mV in all leads": ("noise", noisy, ()),
}


DECLARED = {"rate declared twice as high": 2.0, "rate declared half as high": 0.5}
"""Factor of the declared sampling rate in faults where it is wrong."""


def sensitivity(records: Sequence[Record]) -> list[str]:
    """Rows of the table of faults.

    Its columns are the share that is found with the expected name, those of them that name the
    right leads, and the share with any finding that is more than a note.
    """
    rows = ["| fault | finding | found | leads right | any doubt |", "|---|---|---|---|---|"]
    for fault, (name, change, leads) in FAULTS.items():
        found = right = doubted = 0
        for record in records:
            changed = np.ascontiguousarray(change(record.signal.copy(), round(record.rate)))
            rate = record.rate * DECLARED.get(fault, 1.0)
            results = findings(replace(record, signal=changed, rate=rate))
            results = tuple(x for x in results if x.level != "note")
            doubted += bool(results)
            named = [set(finding.leads) for finding in results if finding.name == name]
            found += bool(named)
            right += set(leads) in named
        shares = [f"{count / len(records):.1%}" for count in (found, doubted)]
        named_right = f"{right / found:.1%}" if leads and found else ""
        rows.append(f"| {fault} | `{name}` | {shares[0]} | {named_right} | {shares[1]} |")
    return rows


def false_findings(records: Sequence[Record]) -> list[str]:
    """Rows of the table of findings in records as published."""
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        results = findings(record)
        counts.update({(finding.name, finding.level) for finding in results})
        counts[("any", "doubt or unusable")] += any(x.level != "note" for x in results)
    rows = [f"| finding | level | of {len(records):,} records |", "|---|---|---|"]
    for (name, level), count in counts.most_common():
        rows.append(f"| `{name}` | {level} | {count} ({count / len(records):.2%}) |")
    return rows


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--records", type=int, default=500, help="for each fault")
    parser.add_argument("--split", default="test", help="`all` for every record")
    arguments = parser.parse_args()
    store = Store.open(arguments.store)
    cohort = open_cohort(arguments.cohort, empty_rows="keep")
    names = cohort.ids() if arguments.split == "all" else cohort.ids(arguments.split)
    names = names[store.without_quarantined(names)]
    print("\n".join(false_findings([store.record(name) for name in names])) + "\n", flush=True)
    sample = np.random.default_rng(0).permutation(names)[: arguments.records]
    print("\n".join(sensitivity([store.record(name) for name in sample])))


if __name__ == "__main__":
    main()
