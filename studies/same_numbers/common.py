"""Shared code of the stored answers: formulas, storing, comparing, running sections in processes.

Nothing here imports einthoven. A section is a list of items; an item is a function of the adapter
that returns a (nested) dictionary of values. An item that raises is reported and stops nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
DATA = Path(os.environ.get("SAME_NUMBERS_DATA", HERE / "data"))
OLD = DATA / "stored"
PTBXL = DATA / "ptbxl"  # unpacked PTB-XL at 100 Hz
PTBXL_STORE = DATA / "ptbxl.store"
SAMPLES = REPOSITORY.parent / "shared" / "data" / "samples"
RECIPES = HERE / "recipes"
TRAINING_COHORT = OLD / "training_cohort"  # simulated when the answers are stored
TABLES = OLD / "tables.npz"
RTOL = 1e-6

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

Item = tuple[str, Callable[[Any], Mapping[str, Any]]]


# --- formulas -----------------------------------------------------------------------------------


def normals(tag: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(tag)).standard_normal(shape)


def formula_tensor(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A tensor as a function of its key, as in shared/parity/weights.py."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    n = np.asarray(normals(zlib.crc32(key.encode()) + seed, shape))
    if key.endswith("running_var"):
        out = 1.0 + 0.1 * np.abs(n)
    elif key.endswith("running_mean"):
        out = 0.1 * n
    elif key.endswith(("weight_g", "parametrizations.weight.original0")) or (
        len(shape) == 1 and key.endswith(".weight")
    ):
        out = 1.0 + 0.1 * n
    elif len(shape) < 2 or (len(shape) >= 3 and shape[0] == 1):
        out = 0.1 * n
    else:
        out = n / math.sqrt(math.prod(shape[1:]))
    return np.asarray(out, np.float32)


def formula_input(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return normals(seed, shape).astype(np.float32)


def formula_ecg(rate: float, *, seconds: float = 10.0, seed: int = 0) -> np.ndarray:
    """Twelve leads of beats, wander, hum and noise, millivolts, (12, samples) float32."""
    samples = round(seconds * rate)
    t = np.arange(samples) / rate
    rng = np.random.Generator(np.random.PCG64(1000 + seed))
    size = rng.uniform(0.3, 1.2, (8, 1)) * rng.choice([-1, 1], (8, 1), p=[0.2, 0.8])
    beat = (t % 0.83) / 0.83
    shape = (
        0.12 * np.exp(-(((beat - 0.25) / 0.03) ** 2))
        - 0.1 * np.exp(-(((beat - 0.38) / 0.01) ** 2))
        + np.exp(-(((beat - 0.40) / 0.012) ** 2))
        - 0.2 * np.exp(-(((beat - 0.425) / 0.012) ** 2))
        + 0.3 * np.exp(-(((beat - 0.65) / 0.05) ** 2))
    )
    phase = rng.uniform(0, 2 * np.pi, (8, 1))
    x = size * shape + 0.1 * np.sin(2 * np.pi * 0.3 * t + phase)
    x = x + 0.01 * np.sin(2 * np.pi * min(50.0, rate / 2.2) * t + phase)
    x = x + 0.01 * rng.standard_normal((8, samples)) + rng.uniform(-0.1, 0.1, (8, 1))
    i, ii = x[0], x[1]
    limb = [i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2]
    return np.stack([*limb, *x[2:]]).astype(np.float32)


def summary(x: Any, *, keep: int = 4000) -> dict[str, Any]:
    """Shape, sums, and an evenly thinned copy of an array."""
    a = np.asarray(x)
    flat = a.reshape(-1)
    step = max(1, -(-flat.size // keep))
    step += step % 2 == 0 and step > 1  # odd, so that it does not walk along one lead
    wide = flat.astype(np.float64)
    sums = [float(np.nansum(wide)), float(np.nansum(np.abs(wide)))]
    return {"shape": list(a.shape), "abs_sum": sums[1], "thinned": flat[::step].copy()} | (
        # A sum that cancels is only as exact as what it is made of.
        {"sum_over_abs_sum": np.array([sums[0] / sums[1], 1.0])} if sums[1] else {}
    )


def tensor_sums(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Names, shapes, sums and absolute sums of tensors, by name."""
    names = sorted(tensors)
    arrays = [np.asarray(tensors[n], np.float64) for n in names]
    return {
        "names": names,
        "shapes": [list(a.shape) for a in arrays],
        "sum": np.array([a.sum() for a in arrays]),
        "abs_sum": np.array([np.abs(a).sum() for a in arrays]),
    }


def digest(*arrays: Any) -> str:
    crc = 0
    for a in arrays:
        crc = zlib.crc32(np.ascontiguousarray(a).tobytes(), crc)
    return f"{crc:08x}"


# --- storing ------------------------------------------------------------------------------------


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists of dictionaries to one level."""
    if isinstance(value, Mapping):
        values: dict[str, Any] = {}
        for key, inner in value.items():
            values |= flatten(inner, f"{prefix}/{key}" if prefix else str(key))
        return values
    if isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value):
        return flatten({str(i): v for i, v in enumerate(value)}, prefix) | {
            f"{prefix}/count": len(value)
        }
    return {prefix: value}


def _array(value: Any) -> np.ndarray | None:
    """A float or number array for the npz; None for what goes to JSON."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "fiub" else None
    if isinstance(value, float | np.floating):
        return np.array(float(value))
    if isinstance(value, list | tuple) and value:
        try:
            array = np.array([np.nan if v is None else v for v in value])
        except (ValueError, TypeError):
            return None
        if array.dtype.kind == "f":
            return array
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def run_section(name: str, items: list[Item], api: Any, out: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {}
    errors: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for item, function in items:
        begin = time.time()
        try:
            for key, value in flatten(function(api)).items():
                full = f"{name}/{item}/{key}"
                array = _array(value)
                if array is None:
                    plain[full] = _plain(value)
                else:
                    arrays[full] = array
        except Exception:
            errors[item] = traceback.format_exc()
        seconds[item] = round(time.time() - begin, 2)
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / f"{name}.npz", **{k.replace("/", "|"): v for k, v in arrays.items()})
    summary = {"values": plain, "errors": errors, "seconds": seconds}
    (out / f"{name}.json").write_text(json.dumps(summary, indent=0))


def load_section(
    folder: Path, name: str
) -> tuple[dict[str, Any], dict[str, str], dict[str, float]]:
    about = json.loads((folder / f"{name}.json").read_text())
    values = dict(about["values"])
    with np.load(folder / f"{name}.npz") as file:
        values |= {k.replace("|", "/"): file[k] for k in file.files}
    return values, about["errors"], about["seconds"]


# --- comparing ----------------------------------------------------------------------------------


def difference(stored: Any, new: Any, rtol: float) -> tuple[float, bool, str]:
    """Largest relative difference, whether it passes, and what is wrong."""
    if not isinstance(stored, np.ndarray) and not isinstance(new, np.ndarray):
        return (0.0, True, "") if stored == new else (math.inf, False, _short(stored, new))
    a, b = np.asarray(stored), np.asarray(new)
    if a.shape != b.shape:
        return math.inf, False, f"shape {a.shape} stored, {b.shape} now"
    if a.dtype.kind in "iub" and b.dtype.kind in "iub":
        wrong = int((a != b).sum())
        return (0.0, True, "") if not wrong else (math.inf, False, f"{wrong} of {a.size} differ")
    try:
        a, b = a.astype(np.float64), b.astype(np.float64)
    except (TypeError, ValueError):
        return math.inf, False, _short(stored, new)
    odd = ~np.isfinite(a) | ~np.isfinite(b)
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return math.inf, False, "NaN or infinity in other places"
    a, b = a[~odd], b[~odd]
    if not a.size:
        return 0.0, True, ""
    gap, size = float(np.abs(a - b).max()), float(np.abs(a).max())
    relative = gap / size if size else (0.0 if not gap else math.inf)
    return relative, relative <= rtol, "" if relative <= rtol else f"max |stored| {size:.6g}"


def _short(a: Any, b: Any) -> str:
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{len(a)} entries stored, {len(b)} now"
        place = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        return f"[{place}] {str(a[place])[:60]!r} stored, {str(b[place])[:60]!r} now"
    return f"{str(a)[:80]!r} stored, {str(b)[:80]!r} now"


def compare_section(
    name: str, old: Path, new: Path, *, rtol: float, quiet: bool
) -> tuple[int, int]:
    """Print a line for each key; passed and failed."""
    stored, refused, _ = load_section(old, name)
    values, errors, seconds = load_section(new, name)
    passed = failed = 0
    for item, text in errors.items():
        was = " (also in the stored answers)" if item in refused else ""
        print(f"ERROR {name}/{item}{was}: {text.strip().splitlines()[-1]}")
        where = [s.strip() for s in text.splitlines() if s.strip().startswith("File ")]
        for line in where[-2:]:
            print(f"      {line}")
        failed += item not in refused
    for key in sorted(stored):
        if key.split("/")[1] in errors:
            continue
        if key not in values:
            print(f"FAIL  missing   {key}")
            failed += 1
            continue
        relative, fine, note = difference(stored[key], values[key], rtol)
        passed, failed = passed + fine, failed + (not fine)
        if not fine or not quiet:
            print(
                f"{'PASS' if fine else 'FAIL'}  {relative:8.1e}  {key}{'  ' + note if note else ''}"
            )
    for key in sorted(values.keys() - stored.keys()):
        print(f"NEW   (not stored) {key}")
    print(f"== {name}: {passed} passed, {failed} failed, {sum(seconds.values()):.0f} s", flush=True)
    return passed, failed


# --- running ------------------------------------------------------------------------------------


def main(script: str, api: Any) -> None:
    """Run sections, each in its own process; store their answers, or compare with the stored."""
    from sections import SECTIONS

    parser = argparse.ArgumentParser(description="The same numbers after a change.")
    parser.add_argument("--store", action="store_true", help="store the answers to compare with")
    parser.add_argument("--src", default=str(REPOSITORY / "src"), help="the tree's src folder")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--items", nargs="+", help="only items whose name starts with one of these")
    parser.add_argument("--rtol", type=float, default=RTOL)
    parser.add_argument("--failures", action="store_true", help="print only what fails")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    stores = options.store
    if stores and options.items and not options.out:
        parser.error("--items would store a part of a section only; name another --out")
    src = Path(options.src).resolve()
    out = options.out or (OLD if stores else DATA / "new" / src.parent.name)
    if options.child:
        _child(options.child, api, src, out, options.items)
        return
    environment = os.environ | {
        "PYTHONPATH": f"{src}{os.pathsep}{HERE}",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    total = [0, 0]
    for section in options.only:
        begin = time.time()
        for kind in ("npz", "json"):
            (out / f"{section}.{kind}").unlink(missing_ok=True)
        command = [sys.executable, script, "--src", str(src), "--out", str(out), "--child", section]
        command += ["--items", *options.items] if options.items else []
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ended.returncode or not (out / f"{section}.json").is_file():
            print(f"ERROR {section}: the process ended with {ended.returncode}")
            print("\n".join(ended.stderr.strip().splitlines()[-6:]))
            total[1] += 1
            continue
        if stores:
            values, errors, seconds = load_section(out, section)
            print(f"{section}: {len(values)} keys, {time.time() - begin:.0f} s {seconds}")
            for item, text in errors.items():
                print(f"ERROR {section}/{item}:\n{text}")
            continue
        if options.items:
            _only(options.items, section, out)
        passed, failed = compare_section(
            section,
            DATA / "new" / f".stored-{src.parent.name}" if options.items else OLD,
            out,
            rtol=options.rtol,
            quiet=options.failures,
        )
        total[0] += passed
        total[1] += failed
    if not stores:
        print(f"== all: {total[0]} passed, {total[1]} failed")
    sys.exit(bool(total[1]))


def _only(items: list[str], section: str, out: Path) -> None:
    """Cut the stored section to the items that were run."""
    values, errors, _ = load_section(OLD, section)
    cut = out.parent / f".stored-{out.name}"
    cut.mkdir(parents=True, exist_ok=True)
    selected = {k: v for k, v in values.items() if k.split("/")[1].startswith(tuple(items))}
    arrays = {k.replace("/", "|"): v for k, v in selected.items() if isinstance(v, np.ndarray)}
    np.savez(cut / f"{section}.npz", **arrays)
    plain = {k: v for k, v in selected.items() if not isinstance(v, np.ndarray)}
    about = {"values": plain, "errors": errors, "seconds": {}}
    (cut / f"{section}.json").write_text(json.dumps(about))


def _child(section: str, api: Any, src: Path, out: Path, prefixes: list[str] | None) -> None:
    import warnings

    import torch

    import einthoven

    if not Path(einthoven.__file__).resolve().is_relative_to(src):
        sys.exit(f"einthoven is imported from {einthoven.__file__}, not from {src}")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from sections import SECTIONS

    items = [i for i in SECTIONS[section](api) if not prefixes or i[0].startswith(tuple(prefixes))]
    run_section(section, items, api, out)
