"""Plain files, written completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import tomllib
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from einthoven.errors import EinthovenError, FileError

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from torch import Tensor

# Names of the files of run folders, stores and model folders.
RUN_FILE, METRICS_FILE, HISTORY_FILE = "run.json", "metrics.json", "metrics.jsonl"
STORE_FILE, CONFIG_FILE, EVALUATION_FILE = "store.json", "config.json", "evaluation.json"

_CHECK = "crc32"  # of a JSON line
_DIGEST = "digest"  # of tensors and metadata, beside the metadata
_METADATA_KEY = "einthoven"  # of all metadata that einthoven writes into a safetensors file
Json = dict[str, Any]

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # names of mkstemp in `replacing`
_UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)?)?")  # as pandas names a column without a name
_MISSING = (
    "", "NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NaN", "nan", "-NaN", "-nan",
    "NULL", "null", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)  # fmt: skip
"""Cells that count as empty, except in columns of text."""
_NONE = "None"  # a common class, and a missing value among numbers
_MASK = os.umask(0)
os.umask(_MASK)
# Permissions of an ordinary new file; mkstemp and safetensors create private ones.
_MODE = 0o666 & ~_MASK


_NUMBER = re.compile(r"(?:os error|errno|Os \{ code:) (\d+)", re.IGNORECASE)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def files_below(folder: Path, unreachable: list[Path] | None = None) -> Iterator[Path]:
    """Files below a folder, in no order; links to files and folders are followed.

    Every folder is entered once, so that links in a circle end.

    Parameters
    ----------
    folder : Path
    unreachable : list of Path, optional
        Gets the links that lead nowhere and the folders that cannot be read.
    """
    missed = [] if unreachable is None else unreachable
    folders, entered = [folder], set()
    links: list[Path] = []
    while folders or links:
        # Files keep their own path, not one through a link, where they have both.
        place = folders.pop() if folders else heappop(links)
        try:
            status = os.stat(place)
            if (key := (status.st_dev, status.st_ino)) in entered:
                continue
            entered.add(key)
            with os.scandir(place) as entries:
                children = list(entries)
        except OSError:
            missed.append(place)
            continue
        for entry in children:
            path = place / entry.name
            if entry.is_dir():
                heappush(links, path) if entry.is_symlink() else folders.append(path)
            elif entry.is_file():
                yield path
            elif entry.is_symlink():
                missed.append(path)


def unwritable(place: Path | str, error: BaseException) -> FileError:
    """FileError about a place that cannot be written, with the remedy that fits its cause."""
    number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
    if match := _NUMBER.search(str(error)):  # safetensors and pyarrow have it in their texts
        number, reason = int(match[1]), os.strerror(int(match[1]))
    reason = reason or str(error) or type(error).__name__
    if number in _FULL:
        remedy = "free some space, or choose another place, and repeat the command"
    elif number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY):
        remedy = "choose another name: a file is where a folder is needed, or the other way round"
    else:
        remedy = "choose another place, or correct its permissions"
    return FileError(f"{place} cannot be written: {reason}", remedy=remedy)


def check_output(path: Path, *, folder: bool) -> None:
    """Refuse a file or folder that cannot be written, before anything is computed for it.

    Raises
    ------
    FileError
        If a folder is where the file has to be, or the other way round, or nothing can be written
        there.
    """
    if path.exists() and path.is_dir() != folder:
        number = errno.ENOTDIR if folder else errno.EISDIR
        raise unwritable(path, OSError(number, os.strerror(number)))
    place = path if folder else path.parent
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        # The only reliable test: permissions say nothing about read-only file systems.
        with tempfile.TemporaryFile(prefix=".", dir=place) as handle:
            handle.write(b"0")
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def replacing(file: Path, *, sync: bool = True) -> Iterator[Path]:
    """Write a file atomically, through a temporary file of a unique name.

    Parameters
    ----------
    file : Path
        File to write.
    sync : bool
        Whether to wait until the content has reached the disk. Waiting for each of many small
        files takes longer than writing them; without it, a power failure may leave one empty.

    Yields
    ------
    Path
        Temporary file beside `file`. It replaces `file` when the block ends, and is removed when
        the block raises.

    Raises
    ------
    FileError
        If the file cannot be written, as in a read-only folder or on a full disk.
    """
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Names of files have at most 255 bytes.
        prefix = f".{file.name[:100]}."
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=file.parent)
        os.close(descriptor)
        temporary = Path(name)
        temporary.chmod(_MODE)
        yield temporary
        if sync:
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, file)
    except OSError as error:
        places = {str(place) for place in (temporary, file, *file.parents)}
        if error.filename is not None and str(error.filename) not in places:
            raise  # about a file that the block reads
        raise unwritable(file, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def delete_temporary(folder: Path) -> None:
    """Delete temporary files of `replacing` anywhere in a folder, which killed processes left."""
    for file in folder.rglob(".*.tmp"):
        if _TEMPORARY.fullmatch(file.name):
            file.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file during the block; it is released when the process ends, even if killed.

    Yields
    ------
    bool
        False, immediately, if another process holds the lock and `wait` is False.

    Raises
    ------
    FileError
        If the lock file cannot be created or locked.
    """
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    except NotImplementedError as error:  # no locks on this file system
        raise FileError(
            f"{file}: files cannot be locked here: {error}",
            remedy="choose a folder on a file system with locks",
        ) from error
    except OSError as error:
        raise unwritable(file, error) from error
    try:
        yield True
    finally:
        lock.release()


def lock_for(path: Path) -> Path:
    """Lock file for a path in a user's folder, kept in the temporary folder of this machine.

    Two names of one place, such as a link and the folder itself, have the same lock.
    """
    place = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"einthoven-{user}" / f"{place}.lock"


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_text(file: Path, text: str) -> None:
    """Write text atomically, as UTF-8."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(file: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(file, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(file: Path, form: type = dict) -> Any:
    """Read JSON, an object or a value of another form.

    Raises
    ------
    FileError
        If the file is missing, cannot be read, is damaged, or has another form.
    """
    try:
        return parse_json(file.read_bytes(), file, form)
    except FileNotFoundError as error:
        raise FileError(f"{file} is missing", remedy="check the path") from error
    except OSError as error:
        raise FileError(
            f"{file} cannot be read: {error.strerror}", remedy="check the path and its permissions"
        ) from error


def parse_json(content: bytes, source: Path | str, form: type = dict) -> Any:
    """Parse the JSON of a file, an object or a value of another form.

    Raises
    ------
    FileError
        If it is damaged, or has another form.
    """
    try:
        value = json.loads(content.decode())
        if not isinstance(value, form):
            raise ValueError(f"its JSON is no {form.__name__}")
        return value
    except (ValueError, RecursionError) as error:  # invalid JSON, or not UTF-8
        raise FileError(
            f"{source} is damaged: {error}",
            remedy="delete it and repeat the command that wrote it",
        ) from error


def read_toml(file: Path, refusal: type[EinthovenError]) -> Json:
    """Read a user's file; raises `refusal` if it is missing, or not TOML in UTF-8."""
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise refusal(f"{file} is missing, or no file", remedy="name a .toml file") from error
    except UnicodeDecodeError as error:
        raise refusal(f"{file} is not UTF-8: {error}", remedy="save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # invalid TOML
        raise refusal(f"{file} is not valid TOML: {error}", remedy="correct that line") from error


def read_table(
    file: Path,
    refusal: type[EinthovenError],
    *,
    text: Collection[str] = (),
    unnamed: Collection[str] = (),
) -> DataFrame:
    """Read a user's table, CSV or Parquet by its suffix.

    A CSV table is in UTF-8, with or without a byte order mark, and has commas between its cells.
    Blanks around the names of columns are removed. First columns without a name are left out if all
    their values are different: an index, as pandas and R write it.

    A cell such as `NA` or `nan` counts as empty, and so does `None` among numbers.

    Parameters
    ----------
    file : Path
    refusal : type of EinthovenError
        Exception for a table that cannot be read.
    text : collection of str
        Columns that are read as text, in which only an empty cell is missing: `007` is neither 7
        nor `7`, and a patient may be called `NA`.
    unnamed : collection of str
        Names for columns without one, in their order; without such names they are refused.

    Raises
    ------
    EinthovenError
        `refusal`, if the file is missing, is not such a table, has a column twice or without a
        name, or a row with more cells than columns.
    """
    import pandas as pd

    if not file.is_file():
        raise refusal(f"{file} is missing, or no file", remedy="name an existing table")
    is_csv = file.suffix.lower() == ".csv"
    names: list[str] = []
    try:
        if is_csv:
            # Pandas renames columns that are there twice, so the header is read by itself.
            head = pd.read_csv(
                file, encoding="utf-8-sig", header=None, nrows=1, dtype=str, keep_default_na=False
            )
            header = head.iloc[0].str.strip().tolist()
            names = _column_names(header, list(unnamed), file, refusal)
            frame = pd.read_csv(
                file,
                encoding="utf-8-sig",
                names=names,
                header=0,
                dtype=dict.fromkeys(text, str),
                na_values={name: [""] if name in text else list(_MISSING) for name in names},
                keep_default_na=False,
                low_memory=False,  # the type of a column is that of all its cells
            )
            for name in frame.columns.difference(list(text)):
                frame[name] = _without_none(frame[name])
        else:
            frame = pd.read_parquet(file)
            names = _column_names([str(name) for name in frame], [], file, refusal)
            frame.columns = names
        frame = without_index(frame)
        if len(frame.columns) and _UNNAMED.fullmatch(frame.columns[0]):
            raise _nameless(names.index(frame.columns[0]), file, refusal)
    except EinthovenError:
        raise
    except UnicodeDecodeError as error:
        raise refusal(
            f"{file} is not UTF-8: {error}", remedy="save it as CSV in UTF-8, with commas"
        ) from error
    except Exception as error:  # pandas and pyarrow raise whatever their parsers run into
        remedy = "save it as CSV in UTF-8, with commas" if is_csv else "write the table again"
        raise refusal(
            f"{file} cannot be read as a table: {str(error).strip() or type(error).__name__}",
            remedy=remedy,
        ) from error
    if is_csv and not isinstance(frame.index, pd.RangeIndex):
        raise refusal(
            f"{file}: the first row has more cells than the {len(names)} columns of the header",
            remedy="give every column a name, and put texts with commas in quotation marks",
        )
    return frame


def _without_none(column: Series[Any]) -> Series[Any]:
    """A column of numbers or booleans, `None` among them missing; others as they are."""
    if not (column == _NONE).any():
        return column
    others = column.mask(column == _NONE)
    try:
        return others.astype("float64")
    except ValueError:
        words = {word.strip().lower() for word in others.dropna()}
        return others if words <= {"true", "false"} else column


def _column_names(
    names: list[str], unnamed: list[str], file: Path, refusal: type[EinthovenError]
) -> list[str]:
    """Names of a table's columns, each once; an index before them is called `Unnamed: 0`."""
    if len(names) == 1 and (separators := set(names[0]) & set(";\t|")):
        raise refusal(
            f"{file}: the header {names[0][:80]!r} is separated by {min(separators)!r}",
            remedy="separate the cells with commas",
        )
    spare = iter(unnamed)
    columns = [name or next(spare, "") for name in names]
    for place, name in enumerate(columns):
        if not _UNNAMED.fullmatch(name):
            break
        columns[place] = f"Unnamed: {place}"
    if "" in columns:
        raise _nameless(columns.index(""), file, refusal)
    twice = [name for place, name in enumerate(columns) if name in columns[:place]]
    if twice:
        raise refusal(
            f"{file}: the column {twice[0]!r} is there twice", remedy="use each name once"
        )
    return columns


def without_index(frame: DataFrame) -> DataFrame:
    """Leave out first columns without a name whose values are all different."""
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        if not (_UNNAMED.fullmatch(str(name)) and column.notna().all() and column.is_unique):
            return frame.iloc[:, place:]
    return frame


def _nameless(place: int, file: Path, refusal: type[EinthovenError]) -> EinthovenError:
    return refusal(
        f"{file}: column {place + 1} has no name",
        remedy="name every column; pandas writes a table without its index by index=False",
    )


def append_line(file: Path, entry: Mapping[str, Any]) -> None:
    """Append one JSON line; a last line that was cut off is removed first.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    try:
        with open(file, "ab+") as handle:
            if size := handle.seek(0, os.SEEK_END):
                handle.seek(size - 1)
                if handle.read() != b"\n":
                    handle.seek(0)
                    handle.truncate(handle.read().rfind(b"\n") + 1)
            handle.write(_line(entry))
    except OSError as error:
        raise unwritable(file, error) from error


def _line(entry: Mapping[str, Any]) -> bytes:
    """A JSON line with a checksum of its other entries."""
    check = zlib.crc32(json.dumps(entry, sort_keys=True).encode())
    return json.dumps({**entry, _CHECK: check}).encode() + b"\n"


def read_lines(file: Path, *, least: int = 0) -> list[Json]:
    """Read JSON lines; empty if there is no such file. A last line that was cut off is left out.

    Raises
    ------
    FileError
        If another line is damaged, or there are fewer lines than `least`.
    """
    if not file.is_file() and not least:
        return []
    entries = []
    content = file.read_bytes() if file.is_file() else b""
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            entry = dict(json.loads(line))
            check = entry.pop(_CHECK, None)  # absent from lines of earlier versions
            if check not in (None, zlib.crc32(json.dumps(entry, sort_keys=True).encode())):
                raise ValueError("its checksum does not match")
            entries.append(entry)
        except (ValueError, TypeError, RecursionError) as error:
            raise FileError(
                f"{file}: line {number} is damaged: {error}",
                remedy=f"delete the folder {file.parent} and repeat the command that wrote it",
            ) from error
    if len(entries) < least:
        raise FileError(
            f"{file} is damaged: {len(entries)} lines, at least {least} were written",
            remedy=f"delete the folder {file.parent} and repeat the command that wrote it",
        )
    return entries


def write_lines(file: Path, entries: list[Json]) -> None:
    """Replace a file's JSON lines atomically."""
    write_text(file, b"".join(map(_line, entries)).decode())


def write_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; the same content gives the same bytes.

    All metadata is stored under one key, because safetensors writes several in random order.

    Raises
    ------
    FileError
        If it cannot be written, as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = {**metadata, _DIGEST: _tensors_digest(whole, metadata)}
    header = {_METADATA_KEY: json.dumps(content, sort_keys=True)}
    with replacing(file) as temporary:
        try:
            save_file(whole, str(temporary), metadata=header)
        except SafetensorError as error:  # a full disk, among others
            raise unwritable(file, error) from error
        temporary.chmod(_MODE)


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises
    ------
    FileError
        If the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise FileError(f"{file} is missing", remedy="check the path")
    try:
        with safe_open(str(file), framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            texts = handle.metadata() or {}
        metadata = json.loads(texts.get(_METADATA_KEY, "{}"))
        digest = metadata.pop(_DIGEST, None)
        if digest is None and any(f'"{_DIGEST}"' in text for text in texts.values()):
            raise ValueError("its metadata are under another name")
        if digest not in (None, _tensors_digest(tensors, metadata)):
            raise ValueError("its content does not match its digest")
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise FileError(
            f"{file} is damaged: {error}", remedy="delete it and repeat the command that wrote it"
        ) from error
    return tensors, metadata


def _tensors_digest(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_metadata(file: Path) -> dict[str, str]:
    """Metadata that einthoven wrote into a safetensors file; empty for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as handle:
            metadata: dict[str, str] = json.loads(
                (handle.metadata() or {}).get(_METADATA_KEY, "{}")
            )
            metadata.pop(_DIGEST, None)
            return metadata
    except (SafetensorError, OSError, ValueError, AttributeError):
        return {}
