"""Hostile checkpoints are refused and leave no trace."""

from __future__ import annotations

import ast
import copyreg
import os
import runpy
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import einthoven
from einthoven.errors import WeightsError
from einthoven.weights import load_backbone
from einthoven.weights.safe import read_checkpoint

attacks = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("attacks.py"))))
GOOD = attacks.tensor(attacks.storage(attacks.text("0")))


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, whose canary module would be found; at the end nothing was touched."""
    (tmp_path / "canary.py").write_text(attacks.CANARY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    assert not (tmp_path / "trace").exists()
    assert "canary" not in sys.modules
    new = {name for name in set(sys.modules) - before if "einthoven" not in name}
    assert new <= {"encodings.cp437"}  # of names in zip archives


def test_the_traps_are_real(tmp_path: Path) -> None:
    """Python's own unpickler falls into them: the tests below could fail."""
    (tmp_path / "canary.py").write_text(attacks.CANARY)
    code = "import sys, pickle; sys.path.insert(0, '.'); pickle.load(open(sys.argv[1], 'rb'))"
    names = ["os.system", "eval", "inst", "obj", "stack global", "getattr chain", "__import__"]
    names += [name for name in attacks.PAYLOADS if name.startswith("config object whose")]
    for name in names:
        attacks.bare(attacks.PAYLOADS[name], tmp_path / "x.pkl")
        command = [sys.executable, "-c", code, "x.pkl"]
        subprocess.run(command, cwd=tmp_path, check=True, env={"PATH": os.defpath})
        (tmp_path / "trace").unlink()


@pytest.mark.parametrize("container", attacks.CONTAINERS)
def test_no_payload_is_carried_out(container: str, trap: Path) -> None:
    make, name = attacks.CONTAINERS[container]
    for what, payload in attacks.PAYLOADS.items():
        path = make(payload, trap / name)
        with pytest.raises(WeightsError) as refusal:
            read_checkpoint(path)
        assert str(path) in refusal.value.problem, what
        assert refusal.value.remedy, what
        if container.startswith(("archive", "before", "plain")):
            assert "damaged" not in refusal.value.problem or what in _DAMAGED, what


# Payloads that misuse a name of ours: refused as nonsense rather than as code.
_DAMAGED = {
    "codecs.encode to another", "device without an end", "numpy object scalar",
    "persistent id that is a number",
}  # fmt: skip


@pytest.mark.parametrize("container", ["archive", "before the archives"])
@pytest.mark.parametrize("what", attacks.BOMBS)
def test_bombs_are_refused_at_once(container: str, what: str, trap: Path) -> None:
    make, name = attacks.CONTAINERS[container]
    path = make(attacks.BOMBS[what], trap / name)
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        read_checkpoint(path)


def test_the_containers_are_read_when_they_are_honest(tmp_path: Path) -> None:
    """Otherwise every refusal above would prove nothing."""
    for make in (attacks.archive, attacks.legacy):
        content = read_checkpoint(make(GOOD, tmp_path / "x"))
        assert content["epoch"] == 1
        assert torch.equal(content["model"], torch.zeros(1))


def test_a_config_object_that_is_data_is_read_without_its_class(trap: Path) -> None:
    """The canary's class is one of those; importing it would leave a trace."""
    state = b"}(" + attacks.text("width") + b"K\x08" + attacks.text("leads") + b"](K\x01eub"
    for make in (attacks.archive, attacks.legacy):
        both = b"](" + GOOD + attacks.new("canary.TrapConfig") + state + b"e"
        content = read_checkpoint(make(both, trap / "x"))
        assert content["model"][1] == {"width": 8, "leads": [1]}


def test_nothing_else_is_tried_after_a_refusal(trap: Path) -> None:
    path = attacks.archive(attacks.PAYLOADS["os.system"], trap / "x.pt")
    with pytest.raises(WeightsError, match=r"the object os\.system besides tensors") as refusal:
        load_backbone("mtecg_tiny", weights=path)
    assert "weights_only" not in str(refusal.value)  # PyTorch's own advice is to switch it off


def test_a_payload_among_good_weights_and_outside_the_wanted_part(trap: Path) -> None:
    both = GOOD + attacks.text("other") + attacks.PAYLOADS["eval"]
    path = attacks.archive(both, trap / "x.pt")
    with pytest.raises(WeightsError, match=r"builtins\.eval"):
        read_checkpoint(path, parts=("model",))


def test_extensions_registered_in_the_process_are_not_used(trap: Path) -> None:
    copyreg.add_extension("os", "system", 0xF0)
    try:
        for make in (attacks.archive, attacks.legacy):
            with pytest.raises(WeightsError, match="EXT1"):
                read_checkpoint(make(attacks.PAYLOADS["extension registry"], trap / "x"))
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


def test_names_that_others_allowed_in_pytorch_stay_refused(trap: Path) -> None:
    path = attacks.archive(attacks.PAYLOADS["posix.system"], trap / "x.pt")
    allowed = torch.serialization.safe_globals([os.system])
    with allowed, pytest.raises(WeightsError, match=r"posix\.system"):
        read_checkpoint(path)


def test_whole_models_and_compiled_programs_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "model.pt")
    program = {"x/data.pkl": b"\x80\x02}.", "x/constants.pkl": b"\x80\x02).", "x/code/a.py": b""}
    (tmp_path / "program.pt").write_bytes(attacks.archive_of(program))
    with pytest.raises(WeightsError, match="TorchScript program"):
        read_checkpoint(tmp_path / "program.pt")


def _archive(path: Path, **extra: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(attacks.archive(GOOD, path)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    return members | extra


@pytest.mark.parametrize("name", ["../trace", "/trace", "archive/../../trace", "..\\trace"])
def test_members_that_lie_outside_the_archive(name: str, trap: Path) -> None:
    (trap / "x.pt").write_bytes(attacks.archive_of(_archive(trap / "x.pt", **{name: b"x"})))
    with pytest.raises(WeightsError, match="path out of the archive"):
        read_checkpoint(trap / "x.pt")


def test_members_that_are_links(trap: Path) -> None:
    with zipfile.ZipFile(attacks.archive(GOOD, trap / "x.pt"), "a") as file:
        link = zipfile.ZipInfo("archive/data/1")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(WeightsError, match="'archive/data/1' is a link"):
        read_checkpoint(trap / "x.pt")


def test_members_of_one_name(trap: Path) -> None:
    path = attacks.archive(GOOD, trap / "x.pt")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(WeightsError, match="two members of one name"):
        read_checkpoint(path)


def test_a_second_description(trap: Path) -> None:
    members = _archive(trap / "x.pt", **{"other/data.pkl": b"\x80\x02}."})
    (trap / "x.pt").write_bytes(attacks.archive_of(members))
    with pytest.raises(WeightsError, match="2 descriptions"):
        read_checkpoint(trap / "x.pt")


def test_zip_bombs(trap: Path) -> None:
    members = _archive(trap / "x.pt", **{"archive/data/0": bytes(50_000_000)})
    bomb = attacks.archive_of(members, compressed=True)
    (trap / "x.pt").write_bytes(bomb)
    with pytest.raises(WeightsError, match=r"declares 50000\d+ bytes of content in a smaller file"):
        read_checkpoint(trap / "x.pt")
    # A little of it is within the sum, thanks to the archive's own entries.
    with zipfile.ZipFile(attacks.archive(GOOD, trap / "x.pt"), "a") as file:
        file.writestr("archive/data/1", bytes(200), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=r"'archive/data/1' is compressed \(\d+ bytes for 200"):
        read_checkpoint(trap / "x.pt")


def test_many_tensors_of_one_storage(trap: Path) -> None:
    """Each would become a tensor of its own when it is converted."""
    torch.save({"model": [torch.zeros(5_000).half()[:] for _ in range(3)]}, trap / "x.pt")
    assert len(read_checkpoint(trap / "x.pt")["model"]) == 3
    one = torch.zeros(5_000).half()
    torch.save({"model": [one[i:] for i in range(200)]}, trap / "x.pt")
    with pytest.raises(WeightsError, match="more than 4 times as many bytes"):
        read_checkpoint(trap / "x.pt")


def test_what_is_no_file(trap: Path) -> None:
    os.mkfifo(trap / "pipe.pt")
    (trap / "loop.pt").symlink_to(trap / "loop.pt")
    for name in ("pipe.pt", "loop.pt", ".", "/dev/zero"):
        with pytest.raises(WeightsError, match="no such file"):
            read_checkpoint(trap / name)
    with pytest.raises(WeightsError, match="neither"):
        read_checkpoint(attacks.text_protocol(trap / "x.ckpt"))


def test_no_attack_reaches_the_interpreter(tmp_path: Path) -> None:
    """In a fresh process with an audit hook: no import, no code, no process, no file but its own.

    Once a file of each kind was read, reading the hostile ones may open nothing but themselves.
    """
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for number, (make, name) in enumerate(attacks.CONTAINERS.values()):
        for count, payload in enumerate((attacks.PAYLOADS | attacks.BOMBS).values()):
            make(payload, hostile / f"{number}-{count}-{name}")
    for make in (attacks.archive, attacks.legacy):
        make(GOOD, tmp_path / f"good-{make.__name__}")
    (tmp_path / "canary.py").write_text(attacks.CANARY)
    done = subprocess.run(
        [sys.executable, "-c", _AUDIT], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == f"{len(list(hostile.iterdir()))} refused\n", done.stderr[-2000:]


_AUDIT = """
import os, sys
from einthoven.errors import WeightsError
from einthoven.weights.safe import read_checkpoint

for name in ("good-archive", "good-legacy"):
    read_checkpoint(name)
harmless = {"builtins.id", "object.__getattr__", "sys._getframe", "os.stat", "gc.get_objects"}
watched, seen = [False], []

def hook(event, args):
    if watched[0] and event not in harmless:
        seen.append((event, tuple(map(str, args[:2]))))

sys.addaudithook(hook)
modules, refused = set(sys.modules), 0
for path in sorted("hostile/" + name for name in os.listdir("hostile")):
    watched[0] = True
    try:
        read_checkpoint(path)
    except WeightsError:
        refused += 1
    watched[0] = False
    other = [e for e in seen if e != ("open", (path, "r"))]
    assert not other, (path, other)
    seen.clear()
assert set(sys.modules) == modules, set(sys.modules) - modules
print(refused, "refused")
"""


def test_the_package_has_no_other_unpickler() -> None:
    """No unsafe way in, under any name, anywhere in the package."""
    unsafe = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
    found = []
    for file in Path(einthoven.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                found += [(file.name, name) for name in names if name.split(".")[0] in unsafe]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in {"torch.load", "joblib.load", "eval", "exec", "pd.read_pickle"}:
                    found.append((file.name, called))
                found += [
                    (file.name, key.arg)
                    for key in node.keywords
                    if key.arg in {"allow_pickle", "weights_only"}
                    and ast.unparse(key.value) != "False"
                ]
    assert found == []
