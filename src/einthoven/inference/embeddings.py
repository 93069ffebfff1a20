"""Embeddings: features of a model's backbone, streamed to a file.

==========  ======================================  ===============================================
level       shape                                   content
==========  ======================================  ===============================================
pooled      (records, feature_dim)                  feature vector of the backbone
token       (records, crops x tokens, dim)          tokens, crop after crop
lead        (records, leads, feature_dim)           feature vector of each lead alone
==========  ======================================  ===============================================

Pooled and lead-level vectors are means over the crops of a record. Tokens are not averaged, because
each belongs to a moment: the tokens of all crops are concatenated, and overlapping crops repeat
moments. A lead is prepared alone, and the backbone's policy replaces the others
(`einthoven.backbones.leads`). Files are described in `einthoven.inference.embedding_files`; records
without an embedding are in `NAME.refused.csv`, as for predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.backbones.contract import Backbone
from einthoven.backbones.inference import Precision
from einthoven.backbones.lead_subset import LeadSubset
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EinthovenError, EvaluationError
from einthoven.files import Json
from einthoven.inference.embedding_files import (
    SUFFIXES,
    Embedding,
    EmbeddingFile,
    write_embeddings,
)
from einthoven.inference.tables import REFUSED, REMEDY, refused_file, write_refused
from einthoven.inference.torch_runtime import on_device
from einthoven.models.model import Model
from einthoven.progress import Progress
from einthoven.records import Record
from einthoven.records.formats import read_excerpt, records_of
from einthoven.records.limb_leads import derive_limb_leads, repair_leads
from einthoven.records.quality import refuse_flat
from einthoven.signals.batches import TOO_SHORT, SignalSource, long_enough
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_record
from einthoven.signals.store import Store

LEVELS = ("pooled", "token", "lead")
Refused = Callable[[Path, EinthovenError], None]


def embed_cohort(
    model: Model,
    cohort: Cohort,
    store: Store,
    out: str | Path,
    *,
    level: str = "pooled",
    split: str | None = None,
    batch_size: int = 64,
    precision: Precision = "fp32",
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> EmbeddingFile:
    """Embed the records of a cohort, or of one of its splits.

    Quarantined records, and those that are shorter than a crop, are refused and listed.

    Parameters
    ----------
    model : Model
        Its backbone and preparation are used; its head is not.
    cohort, store
        Records; labels are not used.
    out : path
        A `.parquet` or `.npy` file.
    level : {"pooled", "token", "lead"}
    split : str, optional
        All records by default.
    batch_size : int
        Records per batch.
    precision : {"fp32", "bf16"}
        Precision of the network; files hold float32.
    progress : Progress, optional

    Raises
    ------
    EvaluationError
        If the level or suffix is unknown, there are no records, or the records of a `.npy` file
        have different numbers of tokens.
    """
    network = Embedder(model, level, precision=precision, device=device)
    usable = long_enough(cohort, store, model.preparation)
    usable = usable.select(store.without_quarantined(usable.ids()))
    refused = _refused(cohort, store, usable, split, model.preparation)
    ids, patients = usable.ids(split).tolist(), usable.patients(split).tolist()
    unlabelled = np.zeros((len(ids), 0), dtype=np.uint8)
    sources = [SignalSource(store, store.rows(ids), unlabelled, p) for p in network.preparations]

    def rows() -> Iterator[Embedding]:
        for start in range(0, len(ids), batch_size):
            part = np.arange(start, min(start + batch_size, len(ids)))
            arrays = network((source.evaluation_crops(part) for source in sources), len(part))
            names = slice(start, start + batch_size)
            yield from map(Embedding, ids[names], patients[names], arrays)
            if progress:
                progress("embed", int(part[-1]) + 1, len(ids))

    origin = {"cohort": cohort.name, "version": cohort.version, "split": split or "all"}
    return _written(out, rows(), network.metadata | origin, refused)


def embed_files(
    model: Model,
    files: Sequence[str | Path],
    out: str | Path,
    *,
    level: str = "pooled",
    precision: Precision = "fp32",
    device: torch.device | str = "cpu",
    refused: Refused | None = None,
    progress: Progress | None = None,
) -> EmbeddingFile:
    """Embed ECG files, one after the other; the record id of a row is the path of its record.

    A file of several records has a row for each.

    Parameters
    ----------
    files : sequence of paths
    refused : callable, optional
        Called with every unusable record, which is left out and listed. By default it raises its
        error.
    model, out, level, precision, device, progress
        As in `embed_cohort`.

    Raises
    ------
    EinthovenError
        As `embed_cohort`; also for an unusable file, without `refused`.
    """
    network = Embedder(model, level, precision=precision, device=device)
    files = [record for file in files for record in records_of(file)]
    faults: list[dict[str, str]] = []

    def rows() -> Iterator[Embedding]:
        for completed, file in enumerate(files, 1):
            try:
                record = read_excerpt(file)
                array = network.embed(record)
            except EinthovenError as error:
                if refused is None:
                    raise
                refused(Path(file), error)
                reasons = {REFUSED: error.problem, REMEDY: error.remedy}
                faults.append({"record": str(file), "patient": "", **reasons})
            else:
                yield Embedding(str(file), record.patient or "", array)
            if progress:
                progress("embed", completed, len(files))

    return _written(out, rows(), network.metadata | {"files": len(files)}, faults)


def _refused(
    cohort: Cohort, store: Store, usable: Cohort, split: str | None, preparation: Preparation
) -> list[dict[str, str]]:
    """Records of a split that are not usable, with reason and remedy."""
    reasons = dict(zip(store.quarantine["record"], store.quarantine["reason"], strict=True))
    paths = dict(zip(cohort.ids(), cohort.paths(), strict=True))
    short = f"{TOO_SHORT} of {preparation.window / preparation.rate:g} s"
    left = ~np.isin(cohort.ids(split), usable.ids(split))
    return [
        {
            "record": name,
            "patient": "" if patient == name else patient,  # a folder without patients
            REFUSED: reasons.get(name, short),
            REMEDY: f"einthoven doctor {paths[name]}"
            if name in reasons
            else "leave the record out",
        }
        for name, patient in zip(
            cohort.ids(split)[left].tolist(), cohort.patients(split)[left].tolist(), strict=True
        )
    ]


def _written(
    out: str | Path, rows: Iterable[Embedding], metadata: Json, refused: list[dict[str, str]]
) -> EmbeddingFile:
    """Write embeddings, and list the records that are refused by then."""
    file = Path(out)
    try:
        done = write_embeddings(file, rows, metadata)
    finally:
        if file.suffix.lower() in SUFFIXES:
            write_refused(file, pd.DataFrame(refused))
    return replace(done, refused=len(refused), refused_file=refused_file(file))


class Embedder:
    """Backbone of a model at one level.

    Attributes
    ----------
    preparations : list of Preparation
        One preparation, or one for each lead.
    metadata : dict
        Description of the vectors, for their file.
    """

    def __init__(
        self, model: Model, level: str, *, precision: Precision, device: torch.device | str
    ) -> None:
        if level not in LEVELS:
            raise EvaluationError(
                f"level = {level!r} is unknown", remedy=f"use one of {', '.join(LEVELS)}"
            )
        self.level, self.precision = level, precision
        self.device = torch.device(device)
        leads = model.preparation.leads
        backbone: Any = on_device(model.backbone, self.device)
        self.backbone: Backbone = backbone.eval()
        self.preparations = [model.preparation]
        self.networks: list[nn.Module] = [self.backbone]
        if level == "lead":
            samples = model.preparation.window
            subsets = [
                LeadSubset(self.backbone, [lead], all_leads=leads, samples=samples)
                for lead in leads
            ]
            self.networks = [*subsets]
            self.preparations = [model.preparation.with_leads(subset.rows) for subset in subsets]
        policies = {n.leads[0]: n.policy for n in self.networks if isinstance(n, LeadSubset)}
        self.metadata = {
            "level": level,
            "backbone": model.backbone.name,
            "weights_sha256": model.config.get("weights_sha256", ""),
            "preparation": model.preparation.to_dict(),
            "leads": list(leads),
            "missing_leads": policies or None,
            "crops": "one after another" if level == "token" else "mean",
            "precision": precision,
        }

    def embed(self, record: Record) -> NDArray[np.float32]:
        """The array of one record.

        Raises
        ------
        PreparationError
            If it lacks leads that do not follow from others, is too short, flat or not finite.
        """
        record = derive_limb_leads(repair_leads(record))
        refuse_flat(record)
        prepared = [prepare_record(preparation, record) for preparation in self.preparations]
        crops = ((x, torch.zeros(len(x), dtype=torch.long)) for x in prepared)
        (array,) = self(crops, 1)
        return array

    def __call__(
        self, crops: Iterable[tuple[Tensor, Tensor]], count: int
    ) -> list[NDArray[np.float32]]:
        """The arrays of `count` records, from (signals, owner) of each preparation."""
        low = torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )
        with torch.no_grad(), low:
            if self.level == "token":
                ((signals, owner),) = crops
                tokens = self.backbone.tokens(signals.to(self.device)).float().cpu()
                return [tokens[owner == place].flatten(0, 1).numpy() for place in range(count)]
            means = [
                crop_means(network(signals.to(self.device)).float().cpu(), owner, count)
                for network, (signals, owner) in zip(self.networks, crops, strict=True)
            ]
        vectors = torch.stack(means, dim=1) if self.level == "lead" else means[0]
        return list(vectors.numpy())


def crop_means(features: Tensor, owner: Tensor, count: int) -> Tensor:
    """Each record's mean over its crops, (count, dim); `owner` is the record of each crop."""
    total = torch.zeros(count, features.shape[1]).index_add_(0, owner, features)
    return total / torch.bincount(owner, minlength=count)[:, None]
