"""Claims: one holder at a time, whatever becomes of the processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from einthoven.errors import ReproduceError
from einthoven.reproduce import claims
from einthoven.reproduce.claims import claim, holder

DIES = """
import os, sys
from pathlib import Path
from einthoven.reproduce.claims import claim
with claim(Path(sys.argv[1]), "cell") as mine:
    assert mine is not None
    os._exit(9)
"""
CONTENDS = """
import sys
from pathlib import Path
from einthoven.reproduce.claims import claim
folder = Path(sys.argv[1])
while not (folder / "go").is_file():
    pass
with claim(folder, "cell") as mine:
    print("got it" if mine else "no", flush=True)
    sys.stdin.readline()  # hold it until everybody has tried
"""


def edit(folder: Path, **changes: object) -> None:
    file = folder / "cell.lock"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_one_at_a_time(tmp_path: Path) -> None:
    with claim(tmp_path, "cell") as mine:
        assert mine is not None
        found = holder(tmp_path, "cell")
        assert found is not None
        assert found["pid"] == os.getpid()
        with claim(tmp_path, "cell") as other:
            assert other is None
        with claim(tmp_path, "another") as free:
            assert free is not None
        assert mine.is_held()
    assert holder(tmp_path, "cell") is None
    with claim(tmp_path, "cell") as again:
        assert again is not None


def test_a_claim_is_given_up_when_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim(tmp_path, "cell"):
        raise ZeroDivisionError
    assert holder(tmp_path, "cell") is None


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DIES, tmp_path], check=False)
    assert done.returncode == 9
    assert (tmp_path / "cell.lock").is_file()
    assert holder(tmp_path, "cell") is None
    with claim(tmp_path, "cell") as mine:
        assert mine is not None


def test_of_many_that_find_a_dead_claim_one_gets_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, tmp_path], check=False)
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDS, tmp_path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    (tmp_path / "go").touch()
    said = [process.stdout.readline().strip() for process in contenders if process.stdout]
    for process in contenders:
        process.communicate("\n")
    assert sorted(said) == ["got it", "no", "no", "no"]


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs Linux's /proc")
def test_a_process_id_that_was_used_again_holds_nothing(tmp_path: Path) -> None:
    with claim(tmp_path, "cell"):
        edit(tmp_path, born="1")
        assert holder(tmp_path, "cell") is None


def test_elsewhere_a_claim_lasts_as_long_as_it_is_touched(tmp_path: Path) -> None:
    with claim(tmp_path, "cell") as mine:
        assert mine is not None
        edit(tmp_path, place="another machine", pid=1)
        with claim(tmp_path, "cell") as other:
            assert other is None
        silent = time.time() - claims.SILENCE - 5
        os.utime(tmp_path / "cell.lock", (silent, silent))
        assert holder(tmp_path, "cell") is None
        with claim(tmp_path, "cell") as other:
            assert other is not None
            assert not mine.is_held()
            with pytest.raises(ReproduceError, match="taken over"):
                mine.refuse_if_lost()
            mine.release()  # of a lost claim: the other's stays
            assert other.is_held()


def test_a_claim_is_touched_while_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with claim(tmp_path, "cell"):
        file = tmp_path / "cell.lock"
        os.utime(file, (1, 1))
        deadline = time.monotonic() + 10
        while file.stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_claim_that_is_just_being_written_is_somebody_s(tmp_path: Path) -> None:
    (tmp_path / "cell.lock").touch()
    with claim(tmp_path, "cell") as mine:
        assert mine is None
