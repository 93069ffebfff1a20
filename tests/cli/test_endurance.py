"""The outside world: places that cannot be written, full disks, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from einthoven.records import read_record
from einthoven.records.wfdb_write import write_wfdb

VERBS = [
    "synthesize {} --records 3",
    "init {}",
    "demo {}",
    "download ptb-xl {}",
    "pack ecgs {}",
    "convert-ecg ecgs {}",
    "posttrain ecgs --backbone tiny --recipe scratch --out {}",
    "pretrain ecgs --backbone tiny --out {}",
    "ensemble run run --out {}",
    "convert-weights st_mem_tiny weights.pth {}",
    "card --cohort ecgs --out {}",
    "predict ecg.hea --out {}.csv",
    "embed ecg.hea --out {}.npy",
    "evaluate run --save {}.csv",
    "report run --out {}.html",
    "doctor ecg.hea --picture {}.html",
    "recipes post-training --copy {}.toml",
]


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_cannot_be_written_is_refused_first(
    verb: str, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_path: Path
) -> None:
    """Before the sources are read: most of them do not exist here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ecgs").symlink_to(synthetic_path)
    (tmp_path / "file").touch()
    result = cli(*verb.format("file/x").split(), status=1)
    assert result.out == ""
    assert result.remedies == 1
    assert "file/x" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["ecgs", "file"],
        ["cache", "ecgs", "file"],
    )


@pytest.mark.parametrize("verb", ["predict ecg.hea --out {}", "synthesize {}"])
def test_a_folder_and_a_file_do_not_replace_each_other(
    verb: str, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("mine")
    name = "folder.csv" if "--out" in verb else "file"
    assert cli(*verb.format(name).split(), status=1).remedies == 1
    assert (tmp_path / "file").read_text() == "mine"


def command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "einthoven", *map(str, arguments)]


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    verb = command("synthesize", tmp_path / "cohort", "--records", 3, "--workers", 1)
    done = subprocess.run(verb, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2  # problem and remedy
    assert "space" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_one_line_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """Also its processes, which receive Ctrl-C from the terminal as well."""
    verb = command("synthesize", tmp_path / "cohort", "--records", 4000, "--workers", 2)
    process = subprocess.Popen(verb, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        for _ in range(600):
            if any(tmp_path.rglob("*.hea")):
                break
            time.sleep(0.1)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert len(errors.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "verb", ["posttrain ecgs --out run --threads 100000000", "download ptb-xl x --workers 99999"]
)
def test_a_number_of_threads_that_ends_the_process_is_refused(
    verb: str, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli(*verb.split(), status=2)


def test_square_brackets_are_no_markup(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_path: Path
) -> None:
    """In the names of files, folders, records, labels and options."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "[b]"
    folder.mkdir()
    record = read_record(synthetic_path / "records100/00000/00001_lr")
    rows = ["record,path,patient,[/b]A,[red]"]
    for i in range(3):
        write_wfdb(folder / f"r{i}", record.signal + i / 99, rate=100, leads=record.leads)
        rows.append(f"[/i]{i},r{i}.hea,[/p]{i},{i % 2},1")
    rows.append("[/i]x,[/x].hea,[/p]x,0,0")
    (folder / "[t].csv").write_text("\n".join(rows))
    assert "[/i]x" in cli("pack", "[b]/[t].csv", "[s]").err
    assert "[/i]x" in cli("doctor", "[s]").out
    assert "[/b]A" in cli("doctor", "[b]/[t].csv").out
    verbs = ("predict [/x].hea", "predict [b]/r0 --leads [/I]", "recipes [/b]", "evaluate [/x]")
    for verb in verbs:
        word = next(word for word in verb.split()[::-1] if word.startswith("[/"))
        assert word in cli(*verb.split(), status=1).err
