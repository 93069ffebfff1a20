"""Embeddings: what a bundle's backbone makes of ECGs, streamed to a file.

==========  ======================================  ===============================================
level       shape                                   what it is
==========  ======================================  ===============================================
pooled      (records, feature_dim)                  the backbone's feature vector
token       (records, crops x tokens, dim)          its tokens, crop after crop
lead        (records, leads, feature_dim)           its feature vector of each lead alone
==========  ======================================  ===============================================

Where a record is cut into several crops, pooled and lead-level vectors are means over them. Tokens
stand for moments and are not averaged: those of a record's crops follow one another in time, and
where crops overlap, moments come more than once. A lead alone is prepared alone, and the
backbone's own policy says what becomes of the others (`einthoven.backbones.subset`).

A `.parquet` file has the columns `record` and `patient`, then `e0000`, `e0001`, ... (pooled), one
list column a lead, by name (lead), or the list column `tokens`. A `.npy` file is one array, and the
`.json` beside it holds the ids of its rows, their patients and its shape. Both are written in
pieces, so that memory does not grow with the records (but for their ids), and replace what was
there only when they are complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from einthoven.cohorts.cohort import Cohort
from einthoven.embed.files import Embedded, writing
from einthoven.embed.vectors import LEVELS, Embedder
from einthoven.errors import EinthovenError
from einthoven.models import Model
from einthoven.records import read_record
from einthoven.signals.batches import SignalSource
from einthoven.signals.prepare import prepare_record
from einthoven.signals.quality import refuse_flat
from einthoven.signals.store import Store

__all__ = ["LEVELS", "Embedded", "Embedder", "embed_cohort", "embed_files"]

Progress = Callable[[int, int], None]
Refused = Callable[[Path, EinthovenError], None]


def embed_cohort(
    bundle: Model,
    cohort: Cohort,
    store: Store,
    out: str | Path,
    *,
    level: str = "pooled",
    split: str | None = None,
    batch_size: int = 64,
    precision: str = "fp32",
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Embedded:
    """Embed the records of a cohort, or of one of its splits; quarantined ones are left out.

    Parameters
    ----------
    bundle : Model
        Its backbone is used, with the bundle's preparation; its head is not.
    cohort, store
        Labels play no part.
    out : path
        A `.parquet` or `.npy` file.
    level : {"pooled", "token", "lead"}
    split : str, optional
        All records without one.
    batch_size : int
        Records at a time.
    precision : {"fp32", "bf16"}
        Of the network; files hold float32.
    progress : callable, optional
        `(done, total)`.

    Raises
    ------
    EvaluationError
        For an unknown level or suffix, no records, and a `.npy` file of records with different
        numbers of tokens.
    """
    network = Embedder(bundle, level, precision=precision, device=device)
    kept = cohort.select(store.without_quarantined(cohort.ids()))
    ids, patients = kept.ids(split), kept.patients(split)
    rows = store.rows(ids)
    unlabelled = np.zeros((len(rows), 0), dtype=np.uint8)
    sources = [SignalSource(store, rows, unlabelled, p) for p in network.preparations]
    about = {"cohort": cohort.name, "version": cohort.version, "split": split or "all"}
    with writing(out, network.level, network.leads, network.about | about) as file:
        for start in range(0, len(ids), batch_size):
            part = np.arange(start, min(start + batch_size, len(ids)))
            crops = (source.evaluation_crops(part) for source in sources)
            file.add(ids[part].tolist(), patients[part].tolist(), network(crops, len(part)))
            if progress:
                progress(int(part[-1]) + 1, len(ids))
    return file.embedded


def embed_files(
    bundle: Model,
    files: Sequence[str | Path],
    out: str | Path,
    *,
    level: str = "pooled",
    precision: str = "fp32",
    device: torch.device | str = "cpu",
    refused: Refused | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """Embed ECG files, one after the other; a row's record id is the path as it was given.

    Parameters
    ----------
    files : sequence of paths
    refused : callable, optional
        Told of every file that cannot be used, which is then left out. Without it the first such
        file ends it all.
    bundle, out, level, precision, device, progress
        As in `embed_cohort`.

    Raises
    ------
    EinthovenError
        As `embed_cohort`, and for a file that cannot be used where nobody is told of it.
    """
    network = Embedder(bundle, level, precision=precision, device=device)
    about: dict[str, Any] = {"files": len(files)}
    with writing(out, network.level, network.leads, network.about | about) as writer:
        for done, file in enumerate(files, 1):
            try:
                record = read_record(file)
                refuse_flat(record)
                prepared = [prepare_record(p, record) for p in network.preparations]
            except EinthovenError as error:
                if refused is None:
                    raise
                refused(Path(file), error)
            else:
                crops = ((x, torch.zeros(len(x), dtype=torch.long)) for x in prepared)
                writer.add([str(file)], [record.patient or ""], network(crops, 1))
            if progress:
                progress(done, len(files))
    return writer.embedded
