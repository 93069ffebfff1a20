"""predict, embed, doctor, synthesize, pack."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ishne_files import ishne_bytes

from einthoven.cohorts import Cohort, open_cohort
from einthoven.cohorts.synthetic import sample_record
from einthoven.inference import predict_record
from einthoven.models import load_model, update_config
from einthoven.predictions import Predictions
from einthoven.records import STANDARD_LEADS, EcgFile, formats, read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.signals.store import Store


def test_predict_prints_one_json_object_a_file(cli: Any, made: Any, synthetic: Cohort) -> None:
    files = synthetic.paths("test")[:3]
    result = cli("predict", "--model", made.model, *files, "--json")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["record"] for line in lines] == [str(file) for file in files]
    keys = {"record", "probabilities", "above_threshold", "derived_leads", "left_out_leads"}
    keys |= {
        "findings",
        "warnings",
        "seconds_left_out",
        "without_call",
        "uncalibrated",
        "thresholds",
        "answers",
        "class_set",
        "intervals",
    }
    assert all(line.keys() == keys for line in lines)
    model = load_model(made.model)
    prediction = predict_record(model, read_record(files[1]))
    assert lines[1]["probabilities"] == prediction.probabilities
    assert lines[1]["above_threshold"] == list(prediction.above_threshold or ())
    assert lines[1]["uncalibrated"] == prediction.uncalibrated
    assert lines[1]["thresholds"] == prediction.thresholds


def test_doubtful_recordings_are_marked_and_flat_ones_refused(
    cli: Any, made: Any, tmp_path: Path
) -> None:
    signal = np.random.default_rng(0).normal(0, 0.3, (12, 1000))
    signal[4] = 0.2
    expected = {"one": "aVL", "microvolts": "microvolts", "offset": " mV"}
    values = {"one": signal, "microvolts": np.clip(1000 * signal, -30, 30), "offset": signal + 0.6}
    for name, warning in expected.items():
        write_wfdb(tmp_path / name, values[name], rate=100, leads=STANDARD_LEADS)
        result = cli("predict", "--model", made.model, tmp_path / f"{name}.hea", "--json")
        assert any(warning in text for text in json.loads(result.out)["warnings"])
    write_wfdb(tmp_path / "flat", 0 * signal, rate=100, leads=STANDARD_LEADS)
    for command in (["predict"], ["embed", "--out", tmp_path / "a.npy"]):
        result = cli(*command, "--model", made.model, tmp_path / "flat.hea", status=1)
        assert result.remedies
        assert "flat.hea" in result.err


def test_predict_without_a_calibration(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    bare = shutil.copytree(made.model, tmp_path / "model")
    update_config(bare, calibration=None)
    file = synthetic.paths("test")[0]
    assert (
        json.loads(cli("predict", "--model", bare, file, "--json").out)["above_threshold"] is None
    )
    assert "calibrated" in cli("predict", "--model", bare, file).out
    assert "calibrated" not in cli("predict", "--model", made.model, file).out


def test_predict_with_fewer_leads(cli: Any, made: Any, synthetic: Cohort) -> None:
    file = synthetic.paths("test")[0]
    result = cli("predict", "--model", made.model, file, "--json", "--leads", "I, ii ")
    probabilities = json.loads(result.out)["probabilities"]
    expected = predict_record(load_model(made.model), read_record(file), leads=("I", "II"))
    assert probabilities == expected.probabilities
    assert json.loads(result.out)["left_out_leads"] == list(STANDARD_LEADS[6:])
    assert json.loads(result.out)["without_call"] == list(probabilities)
    assert json.loads(result.out)["above_threshold"] == []
    printed = cli("predict", "--model", made.model, file, "--leads", "I,II")
    whole = cli("predict", "--model", made.model, file)
    for leads in ("III, aVR, aVL, aVF", "V1, V2, V3, V4, V5, V6"):
        assert leads in " ".join(printed.out.split())
        assert leads not in " ".join(whole.out.split())
    assert " above" not in printed.out
    result = cli("predict", "--model", made.model, file, "--leads", "I,X1", status=1)
    assert "X1" in result.err
    for leads in ("I,", ""):
        result = cli("predict", "--model", made.model, file, "--leads", leads, status=1)
        assert f"--leads {leads!r}" in result.err


def test_the_included_model_answers_only_accurate_labels(cli: Any, synthetic: Cohort) -> None:
    file = synthetic.paths("test")[0]
    values = json.loads(cli("predict", file, "--json", "--leads", "I,II,V1,V5").out)
    answered = [x for x, value in values["probabilities"].items() if value is not None]
    assert set(answered).isdisjoint(values["without_call"])
    assert len(answered) + len(values["without_call"]) == 71
    printed = cli("predict", file, "--leads", "I,II,V1,V5").out
    rows = [line.split("│")[1].strip() for line in printed.splitlines() if "│" in line]
    assert sorted(rows) == sorted(answered)[:8]
    alone = json.loads(cli("predict", file, "--leads", "I", "--json").out)
    assert len(alone["without_call"]) == 71
    assert alone["above_threshold"] == []
    assert any("posttrain COHORT --leads I" in warning for warning in alone["warnings"])


def test_a_bad_file_does_not_stop_the_good_ones(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    good = synthetic.paths("test")[:2]
    (tmp_path / "empty.hea").write_text("")
    result = cli(
        "predict", "--model", made.model, "--json",
        good[0], tmp_path / "empty.hea", tmp_path / "absent.hea", good[1],
        status=1,
    )  # fmt: skip
    assert [json.loads(line)["record"] for line in result.out.splitlines()] == list(map(str, good))
    assert result.remedies == 2
    for name in ("empty.hea", "absent.hea"):
        assert name in result.err


def test_a_long_recording(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both commands name the part that they looked at, and read nothing else."""
    monkeypatch.setattr(formats, "EXCERPT", 20.0)
    counts = np.tile((sample_record().signal * 400).astype(np.int16), (1, 9))
    path = tmp_path / "day.ecg"
    path.write_bytes(ishne_bytes(counts, rate=500, codes=range(5, 17)))
    monkeypatch.setattr(EcgFile, "content", property(lambda file: pytest.fail("read as a whole")))
    (warning,) = json.loads(cli("predict", path, "--json").out)["warnings"]
    assert "35 to 55 s of 90 s" in warning
    lines = cli("doctor", path).out.splitlines()
    assert "90 s" in lines[0]
    (examined,) = (line for line in lines if "examined" in line)
    assert examined.endswith("0, 9, 19, 29, 39, 48, 58, 68, 78, 88 s")


def test_a_table_is_predicted_into_a_file(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    paths = [str(path.resolve()) for path in synthetic.paths("test")[:5]]
    table, out = tmp_path / "ecgs.csv", tmp_path / "p.csv"
    pd.DataFrame({"path": [*paths[:2], "absent", *paths[2:]], "ward": "B"}).to_csv(
        table, index=False
    )
    command = ("predict", table, "--model", made.model)
    assert f"predict {table} --out" in cli(*command, status=1).err
    result = cli(*command, "--out", out, "--batch-size", 2, "--device", "cpu", status=1)
    assert f"{out} (5 records)" in result.out
    refused = pd.read_csv(tmp_path / "p.refused.csv")
    assert refused["record"].tolist() == ["absent"]
    assert "absent" in refused["refused"][0]
    loaded = Predictions.load(out)
    assert loaded.records.tolist() == paths
    expected = predict_record(load_model(made.model), read_record(paths[3])).probabilities
    assert loaded.probabilities[3] == pytest.approx(list(expected.values()), abs=1e-6)
    cli("predict", *paths, "--model", made.model, "--out", tmp_path / "p.parquet")
    assert len(Predictions.load(tmp_path / "p.parquet")) == 5
    assert "--json" in cli(*command, "--out", out, "--json", status=1).err
    assert "predictions.csv" in cli(*command, "--out", tmp_path / "p.txt", status=1).err


@pytest.mark.parametrize("command", [("predict",), ("embed", "--out", "x.npy")])
def test_a_model_given_as_an_ecg_is_refused_with_the_command(
    cli: Any, made: Any, command: tuple[str, ...]
) -> None:
    for source in (made.model, made.run):
        result = cli(*command, source, "some.hea", status=1)
        assert f"einthoven {command[0]} --model {made.model} FILE" in result.err


def test_an_unknown_model_is_refused_with_models_nearby(
    cli: Any, made: Any, synthetic: Cohort
) -> None:
    file = synthetic.paths("test")[0]
    result = cli("predict", "--model", "nope", file, status=1)
    assert "einthoven-small" in result.err
    for folder, problem in ((made.run / "modle", "modle"), (made.run, "config.json")):
        result = cli("predict", "--model", folder, file, status=1)
        assert problem in result.err
        assert f" {made.model} " in result.err


def test_predict_prints_the_most_probable_labels(
    cli: Any, made: Any, synthetic: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = synthetic.paths("test")[0]
    monkeypatch.setenv("EINTHOVEN_MODEL", str(made.model))
    result = cli("predict", file, "--top", 2)
    prediction = predict_record(load_model(made.model), read_record(file))
    values, above = prediction.probabilities, prediction.above_threshold or ()
    ranked = sorted(values, key=lambda label: -values[label])
    expected = [label for i, label in enumerate(ranked) if i < 2 or label in above]
    lines = [line for line in result.out.splitlines() if "│" in line]
    lines = [line for line in lines if line.split("│")[1].strip()]  # without folded cells
    assert [line.split("│")[1].strip() for line in lines] == expected
    assert f"{values[ranked[0]]:.3f}" in result.out
    assert above
    assert [("above" in line) for line in lines] == [label in above for label in expected]


def test_columns_without_content_are_not_printed(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    bare = shutil.copytree(made.model, tmp_path / "model")
    file = synthetic.paths("test")[0]
    headers = []
    for descriptions in ({}, dict.fromkeys(load_model(bare).labels, "x")):
        update_config(bare, descriptions=descriptions)
        headers.append("meaning" in cli("predict", "--model", bare, file).out)
    assert headers == [False, True]


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
    assert f"{out} ({records} x 12 x 32, lead)" in result.out
    assert np.load(out).shape == (records, 12, 32)


def test_embed_a_table_with_other_columns(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    paths = [str(path.resolve()) for path in synthetic.paths()[:30]]
    table, out = tmp_path / "ecgs.csv", tmp_path / "x.npy"
    pd.DataFrame({"path": paths, "ward": "B"}).to_csv(table, index=False)
    cli("embed", "--model", made.model, table, "--out", out, "--device", "cpu")
    assert np.load(out).shape == (30, 32)
    frame = pd.DataFrame({"path": paths, "patient": paths, "ward": "B"})
    frame.assign(AFIB=[0, 1, 1] * 10).to_csv(table, index=False)
    command = ("embed", "--model", made.model, table, "--out", out, "--split", "test")
    assert "--target" in cli(*command, status=1).err
    result = cli(*command, "--label", "AFIB")
    count = len(open_cohort(table, labels=["AFIB"]).ids("test"))
    assert f"({count} x 32, pooled)" in result.out


def test_embed_files_and_leave_out_the_bad(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    good, out = synthetic.paths("test")[:2], tmp_path / "x.parquet"
    bad = tmp_path / "absent.hea"
    result = cli("embed", "--model", made.model, good[0], bad, good[1], "--out", out, status=1)
    assert result.remedies == 1
    assert f"{out} (2 x 32, pooled)" in result.out
    assert pd.read_parquet(out)["record"].tolist() == [str(file) for file in good]
    assert pd.read_csv(tmp_path / "x.refused.csv")["record"].tolist() == [str(bad)]
    result = cli("embed", "--model", made.model, bad, "--out", tmp_path / "y.parquet", status=1)
    assert "absent.hea" in result.err
    assert not (tmp_path / "y.parquet").exists()


def test_embed_a_folder_and_list_the_refused(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    folder, out = tmp_path / "ecgs", tmp_path / "x.npy"
    folder.mkdir()
    record = read_record(synthetic.paths("test")[0])
    for name, samples in (("long", 1000), ("short", 150)):
        write_wfdb(folder / name, record.signal[:, :samples], rate=100, leads=record.leads)
    (folder / "bad.scp").write_bytes(b"x" * 300)
    command = ("embed", "--model", made.model, folder, "--out", out, "--device", "cpu")
    command += ("--store", tmp_path / "store")
    cli(*command, status=1)
    assert np.load(out).shape == (1, 32)
    refused = pd.read_csv(tmp_path / "x.refused.csv")
    assert refused["record"].tolist() == ["bad.scp", "short"]
    assert refused.notna()[["refused", "remedy"]].all(axis=None)
    (folder / "bad.scp").unlink()
    (folder / "short.hea").unlink()
    cli(*command[:-1], tmp_path / "other")
    assert not (tmp_path / "x.refused.csv").exists()


def test_options_of_a_cohort_are_refused_for_files(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    command = ("embed", "--model", made.model, synthetic.paths("test")[0])
    command += ("--out", tmp_path / "x.npy")
    for option, value in (("--split", "test"), ("--store", tmp_path), ("--batch-size", 3)):
        result = cli(*command, option, value, status=1)
        assert option in result.err
    result = cli(*command, "--split", "test", "--store", tmp_path, status=1)
    assert all(option in result.err for option in ("--split", "--store"))
    assert not list(tmp_path.glob("x.*"))


def test_doctor_of_everything(
    cli: Any, synthetic_path: Path, synthetic_store: Store, synthetic: Cohort, tmp_path: Path
) -> None:
    assert "torch" in cli("doctor").out
    assert re.search("160 records.* 127 patients", cli("doctor", synthetic_path).out)
    assert "160 records" in cli("doctor", synthetic_store.root).out
    picture = tmp_path / "x.png"
    file = synthetic.paths("test")[0]
    result = cli("doctor", file, "--backbone", "mtecg_tiny_100hz", "--picture", picture)
    assert "Einthoven" in result.out
    assert picture.is_file()


def test_doctor_shows_what_a_backbone_with_options_receives(
    cli: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    file, picture = synthetic.paths("test")[0], tmp_path / "x.png"
    command = ["doctor", file, "--backbone", "ecgfounder_12lead", "--picture", picture]
    result = cli(*command, "--option", "preparation=evaluation", "--option", "window=2500")
    assert re.search("3 crops.* 12 leads.* 2500 samples", result.out)
    assert "notch" not in result.out
    result = cli("doctor", file, "--backbone", "einthoven-small", "--picture", picture)
    assert load_model("einthoven-small").preparation.describe() in result.out
    assert cli("doctor", file, "--picture", picture).out == result.out
    result = cli("doctor", file, "--option", "window=2500", status=1)
    assert "--backbone" in result.err
    result = cli(*command, "--option", "preparation=best", status=1)
    assert "preparation = 'best'" in result.err


def test_doctor_draws_in_this_folder_when_no_place_is_named(
    cli: Any, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = synthetic.paths("test")[0].with_suffix(".hea").resolve()
    result = cli("doctor", file, "--backbone", "ecg_fm")
    page = tmp_path / f"{file.stem}-ecg_fm.html"
    assert page.name in result.out
    assert re.search("100 Hz.* 500 Hz", page.read_text())


@pytest.mark.filterwarnings("always::einthoven.licences.LicenceWarning")
def test_predict_reports_derived_leads_and_the_licence(
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
    assert "III, aVR, aVL, aVF" in " ".join(result.out.split())
    update_config(model, license="CC-BY-NC-4.0", license_text="", commercial_use=False)
    result = cli("predict", "--model", model, tmp_path / "eight.hea", "--json")
    assert "CC-BY-NC-4.0" in result.err
    assert len(result.out.splitlines()) == 1


def test_synthesize_then_pack(cli: Any, tmp_path: Path) -> None:
    cohort, store = tmp_path / "cohort", tmp_path / "store"
    result = cli("synthesize", cohort, "--records", 12, "--workers", 1, "--seed", 4)
    assert re.match(rf"12 .*{cohort}$", result.out)
    signal = next((cohort / "records100").rglob("*.dat"))
    signal.write_bytes(signal.read_bytes()[:-7])
    result = cli("pack", cohort, store, "--leads", "ii,V1", "--workers", 1)
    assert re.match(rf"11 .*{store}$", result.out)
    assert "1 record " in result.err
    assert signal.stem in result.err
    packed = Store.open(store)
    assert packed.leads == ("II", "V1")
    result = cli("synthesize", cohort, status=1)
    assert result.remedies == 1


def test_a_store_of_another_cohort_is_not_overwritten(
    cli: Any, synthetic_store: Store, tmp_path: Path
) -> None:
    cli("synthesize", tmp_path / "cohort", "--records", 3, "--workers", 1)
    result = cli("pack", tmp_path / "cohort", synthetic_store.root, status=1)
    assert str(synthetic_store.root) in result.err
