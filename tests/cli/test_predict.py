"""predict, embed, doctor, synthesize, pack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import Cohort, open_cohort
from einthoven.models import load_model, update_config
from einthoven.predict import predict_record
from einthoven.records import STANDARD_LEADS, read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.signals.store import Store


def test_predict_prints_one_json_object_a_file(cli: Any, made: Any, synthetic: Cohort) -> None:
    files = synthetic.paths("test")[:3]
    result = cli("predict", "--model", made.model, *files, "--json")
    assert result.status == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["record"] for line in lines] == [str(file) for file in files]
    keys = {"record", "probabilities", "above_threshold", "derived_leads", "left_out_leads"}
    keys |= {"doubts", "seconds_left_out"}
    assert all(line.keys() == keys for line in lines)
    bundle = load_model(made.model)
    done = predict_record(bundle, read_record(files[1]))
    assert lines[1]["probabilities"] == done.probabilities
    assert lines[1]["above_threshold"] == list(done.above_threshold or ())


def test_predict_doubts_odd_recordings_and_refuses_one_without_a_signal(
    cli: Any, made: Any, tmp_path: Path
) -> None:
    signal = np.random.default_rng(0).normal(0, 0.3, (12, 1000))
    for name, values in (
        ("flat", 0 * signal),
        ("microvolts", np.clip(1000 * signal, -30, 30)),
        ("one", signal),
    ):
        if name == "one":
            values[4] = 0.2
        write_wfdb(tmp_path / name, values, rate=100, leads=STANDARD_LEADS)
    result = cli("predict", "--model", made.model, tmp_path / "flat.hea")
    assert result.status == 1
    assert "What to do:" in result.err
    result = cli("predict", "--model", made.model, tmp_path / "microvolts.hea", "--json")
    (doubt,) = json.loads(result.out)["doubts"]
    assert "look like microvolts that are declared as millivolts" in doubt
    result = cli("predict", "--model", made.model, tmp_path / "one.hea")
    assert "aVL is flat" in " ".join(result.out.split())
    write_wfdb(tmp_path / "offset", signal + 0.6, rate=100, leads=STANDARD_LEADS)
    result = cli("predict", "--model", made.model, tmp_path / "offset.hea", "--json")
    doubt = json.loads(result.out)["doubts"][-1]
    assert "mV from zero" in doubt
    result = cli("embed", "--model", made.model, tmp_path / "flat.hea", "--out", tmp_path / "a.npy")
    assert result.status == 1


def test_predict_says_where_there_are_no_thresholds(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    bare = shutil.copytree(made.model, tmp_path / "model")
    update_config(bare, calibration=None)
    file = synthetic.paths("test")[0]
    assert (
        json.loads(cli("predict", "--model", bare, file, "--json").out)["above_threshold"] is None
    )
    assert "not calibrated" in cli("predict", "--model", bare, file).out
    assert "not calibrated" not in cli("predict", "--model", made.model, file).out


def test_predict_with_fewer_leads(cli: Any, made: Any, synthetic: Cohort) -> None:
    file = synthetic.paths("test")[0]
    result = cli("predict", "--model", made.model, file, "--json", "--leads", "I, ii ")
    found = json.loads(result.out)["probabilities"]
    expected = predict_record(load_model(made.model), read_record(file), leads=("I", "II"))
    assert found == expected.probabilities
    assert json.loads(result.out)["left_out_leads"] == list(STANDARD_LEADS[6:])
    cautioned = cli("predict", "--model", made.model, file, "--leads", "I,II")
    said_so = " ".join(cautioned.out.split())
    assert "III, aVR, aVL, aVF computed from the other limb leads" in said_so
    assert "without V1, V2, V3, V4, V5, V6" in said_so
    assert "without" not in cli("predict", "--model", made.model, file).out
    result = cli("predict", "--model", made.model, file, "--leads", "I,X1")
    assert result.status == 1
    assert "X1" in result.err
    result = cli("predict", "--model", made.model, file, "--leads", "I,")
    assert (result.status, "--leads 'I,'" in result.err) == (1, True)


def test_a_bad_file_does_not_stop_the_good_ones(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    good = synthetic.paths("test")[:2]
    (tmp_path / "empty.hea").write_text("")
    result = cli(
        "predict", "--model", made.model, "--json",
        good[0], tmp_path / "empty.hea", tmp_path / "absent.hea", tmp_path, good[1],
    )  # fmt: skip
    assert result.status == 1
    assert [json.loads(line)["record"] for line in result.out.splitlines()] == list(map(str, good))
    assert result.err.count("What to do:") == 3
    for name in ("empty.hea", "absent.hea", f"{tmp_path} is a cohort"):
        assert name in result.err


def test_predict_names_the_bundles_that_are_there(cli: Any, made: Any, synthetic: Cohort) -> None:
    file = synthetic.paths("test")[0]
    result = cli("predict", "--model", "nope", file)
    assert result.status == 1
    assert "einthoven-small" in result.err
    result = cli("predict", "--model", made.run / "modle", file)
    assert f"such as {made.model} or" in result.err
    result = cli("predict", "--model", made.run, file)
    assert "config.json" in result.err
    assert f"such as {made.model} or" in result.err


def test_predict_names_the_labels_it_is_surest_of(
    cli: Any, made: Any, synthetic: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = synthetic.paths("test")[0]
    monkeypatch.setenv("EINTHOVEN_MODEL", str(made.model))
    result = cli("predict", file, "--top", 2)
    assert result.status == 0
    done = predict_record(load_model(made.model), read_record(file))
    found, above = done.probabilities, done.above_threshold or ()
    ranked = sorted(found, key=lambda label: -found[label])
    wanted = [label for i, label in enumerate(ranked) if i < 2 or label in above]
    lines = [line for line in result.out.splitlines() if "│" in line]
    assert [line.split("│")[1].strip() for line in lines] == wanted
    assert f"{found[ranked[0]]:.3f}" in result.out
    assert above
    assert [("above" in line) for line in lines] == [label in above for label in wanted]


def test_embed_a_cohort(
    cli: Any, made: Any, synthetic: Cohort, synthetic_path: Path, synthetic_store: Store,
    tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "x.npy"
    result = cli(
        "embed", "--model", made.model, synthetic_path, "--store", synthetic_store.root,
        "--out", out, "--split", "test", "--level", "lead", "--device", "cpu",
    )  # fmt: skip
    records = len(open_cohort(synthetic_path, empty_rows="keep").ids("test"))
    assert result.status == 0, result.err
    assert result.out.strip() == f"Embeddings: {out} ({records} x 12 x 32, lead)"
    assert np.load(out).shape == (records, 12, 32)


def test_embed_files_and_leave_out_the_bad(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    good, out = synthetic.paths("test")[:2], tmp_path / "x.parquet"
    bad = tmp_path / "absent.hea"
    result = cli("embed", "--model", made.model, good[0], bad, good[1], "--out", out)
    assert result.status == 1
    assert result.err.count("What to do:") == 1
    assert result.out.strip() == f"Embeddings: {out} (2 x 32, pooled)"
    assert pd.read_parquet(out)["record"].tolist() == [str(file) for file in good]
    result = cli("embed", "--model", made.model, bad, "--out", tmp_path / "y.parquet")
    assert result.status == 1
    assert "absent.hea" in result.err
    assert not (tmp_path / "y.parquet").exists()


def test_options_of_a_cohort_are_refused_for_files(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    command = (
        "embed",
        "--model",
        made.model,
        synthetic.paths("test")[0],
        "--out",
        tmp_path / "x.npy",
    )
    for option, value in (("--split", "test"), ("--store", tmp_path), ("--batch-size", 3)):
        result = cli(*command, option, value)
        assert result.status == 1
        assert option in result.err
    result = cli(*command, "--split", "test", "--store", tmp_path)
    assert "--split and --store" in result.err
    assert not list(tmp_path.glob("x.*"))


def test_doctor_of_everything(
    cli: Any, synthetic_path: Path, synthetic_store: Store, synthetic: Cohort, tmp_path: Path
) -> None:
    assert "torch" in cli("doctor").out
    assert "160 records of 127 patients" in cli("doctor", synthetic_path).out
    assert "160 records" in cli("doctor", synthetic_store.root).out
    picture = tmp_path / "x.png"
    file = synthetic.paths("test")[0]
    result = cli("doctor", file, "--backbone", "mtecg_tiny_100hz", "--picture", picture)
    assert result.status == 0
    assert "Einthoven's law" in result.out
    assert picture.is_file()


def test_doctor_shows_what_a_backbone_with_options_receives(
    cli: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    file, picture = synthetic.paths("test")[0], tmp_path / "x.png"
    command = ["doctor", file, "--backbone", "ecgfounder_12lead", "--picture", picture]
    result = cli(*command, "--option", "preparation=evaluation", "--option", "window=2500")
    assert result.status == 0, result.err
    assert "3 crops of 12 leads x 2500 samples" in result.out
    assert "notch" not in result.out
    result = cli("doctor", file, "--backbone", "einthoven-small", "--picture", picture)
    assert "12 leads; minus each lead's mean; fourier resampling to 100 Hz" in result.out, (
        result.err
    )
    result = cli("doctor", file, "--option", "window=2500")
    assert (result.status, "--backbone" in result.err) == (1, True)
    result = cli(*command, "--option", "preparation=best")
    assert "preparation = 'best' is impossible" in result.err


def test_doctor_draws_in_this_folder_when_no_place_is_named(
    cli: Any, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = synthetic.paths("test")[0].with_suffix(".hea").resolve()
    result = cli("doctor", file, "--backbone", "ecg_fm")
    assert result.status == 0
    page = tmp_path / f"{file.stem}-ecg_fm.html"
    assert f"picture: {page.name}" in result.out
    assert "100 Hz is below the 500 Hz" in page.read_text()


@pytest.mark.filterwarnings("always::einthoven.licences.LicenceWarning")
def test_predict_says_what_it_computed_and_under_which_terms(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    record = read_record(synthetic.paths("test")[0])
    eight = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    write_wfdb(tmp_path / "eight", record.select(eight).signal, rate=record.rate, leads=eight)
    model = shutil.copytree(made.model, tmp_path / "model")
    result = cli("predict", "--model", model, tmp_path / "eight.hea", "--json")
    assert json.loads(result.out)["derived_leads"] == ["III", "aVR", "aVL", "aVF"]
    assert not result.err
    result = cli("predict", "--model", model, tmp_path / "eight.hea")
    assert "III, aVR, aVL, aVF computed" in " ".join(result.out.split())
    update_config(model, license="CC-BY-NC-4.0", license_text="", commercial_use=False)
    result = cli("predict", "--model", model, tmp_path / "eight.hea", "--json")
    assert result.status == 0
    assert "CC-BY-NC-4.0" in result.err
    assert len(result.out.splitlines()) == 1


def test_synthesize_then_pack(cli: Any, tmp_path: Path) -> None:
    cohort, store = tmp_path / "cohort", tmp_path / "store"
    result = cli("synthesize", cohort, "--records", 12, "--workers", 1, "--seed", 4)
    assert (result.status, result.out.strip()) == (0, f"12 simulated ECGs in {cohort}")
    signal = next((cohort / "records100").rglob("*.dat"))
    signal.write_bytes(signal.read_bytes()[:-7])
    result = cli("pack", cohort, store, "--leads", "ii,V1", "--workers", 1)
    assert result.status == 0
    assert result.out.strip() == f"11 records in {store}"
    assert "1 record in quarantine" in result.err
    assert signal.stem in result.err
    packed = Store.open(store)
    assert packed.leads == ("II", "V1")
    result = cli("synthesize", cohort)
    assert result.status == 1
    assert "What to do" in result.err


def test_a_store_of_another_cohort_is_not_overwritten(
    cli: Any, synthetic_store: Store, tmp_path: Path
) -> None:
    cli("synthesize", tmp_path / "cohort", "--records", 3, "--workers", 1)
    result = cli("pack", tmp_path / "cohort", synthetic_store.root)
    assert result.status == 1
    assert "another cohort" in result.err
