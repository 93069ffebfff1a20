"""HuBERT-ECG: a HuBERT encoder over the twelve leads laid end to end.

Coppola et al., "HuBERT-ECG: a self-supervised foundation model for broad and scalable cardiac
applications", medRxiv 2024.11.14.24317328. Five seconds of twelve leads at 100 Hz become one
signal of 6,000 samples; strided convolutions make 93 tokens of it, each 64 samples after the one
before, so that tokens straddle the seams between leads. Only a sample's position in the row
identifies its lead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from einthoven.backbones.config import Count, Counts
from einthoven.backbones.layers.wav2vec import Wav2VecBackbone, Wav2VecConfig
from einthoven.backbones.leads import lead_rows
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.licences import Licence
from einthoven.records.limb_leads import derivable_leads
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Decimate, Fill, Fir, MinMax, Resample, Window

RATE = 500  # Hz at which recordings are scaled and cropped
DECIMATION = 5
# What a lead of zero volts is in the prepared input: -1, times the decimation's gain at 0 Hz.
FLAT_LEAD = -(10 ** (2 * -0.05 / 20))


@dataclass(frozen=True, kw_only=True)
class HubertECGConfig(Wav2VecConfig):
    """Configuration of a HuBERT-ECG encoder; its leads are in the standard order.

    Released pretraining has `layerdrop` 0.1, 0.1, 0 for small, base and large, released fine-tuning
    0, 0.1, 0.1; `attention_dropout` is 0.1 throughout in the released training.

    Attributes
    ----------
    max_samples : int
        Samples of a lead in the longest input. The authors state that the network is not made for
        10 s; it runs, when this is raised.
    missing_leads : {"refuse", "zero", "mean"}
        What happens to an input without some of the twelve leads, see `HubertECG`.
    window : int or None
        Samples of a lead in the prepared input when it is to be shorter than the longest one.
    """

    conv_width: Count = 512
    conv_kernels: Counts = (10, 3, 3, 2, 2)
    conv_strides: Counts = (4, 2, 2, 2, 2)
    max_samples: Count = 500
    missing_leads: Literal["refuse", "zero", "mean"] = "refuse"
    window: Count | None = None


class HubertECG(Wav2VecBackbone):
    """The HuBERT-ECG encoder.

    Notes
    -----
    The norms have eps 1e-5, and there is none behind the last block: its blocks normalise after
    each addition. Features are the mean of the tokens, as in the released classifier. The group
    norm in the extractor removes any factor and offset that all leads share.

    *Fewer leads.* All twelve places are always there. Limb leads that follow from those of
    `leads` (III from I and II) are computed by the preparation, in millivolts; at call time they
    are always refused, because after each lead is scaled on its own their linear relation no longer
    holds. Other missing leads are refused too, unless `missing_leads` determines their values. The
    authors publish no rule, and name missing leads as a cause of misleading outputs; their code
    leaves two. A lead that is zero in the recording becomes -1 by their scaling, and -0.989 by
    their decimation: ``"zero"`` fills in that. A lead whose values are not numbers becomes the mean
    of the crop's others: ``"mean"`` fills in the mean of the leads given. Either leaves out what
    the decimation's filter does at the seams to the neighbouring leads.

    *What stays frozen.* Nothing by default. The released fine-tuning freezes the extractor, the
    positional convolution and the norm behind it even when "all layers" are trained. The recipe's
    `freeze_extractor` freezes the extractor, `freeze_positions` the positional convolution and its
    norm.

    *Left out.* The vector that stands in for masked tokens in pretraining, and the heads that
    predict cluster numbers: nothing else uses them. `features` also omits the attention mask of the
    released training. That mask counts the samples that are not padding from the start of the row
    of leads, and so hides the last leads instead of the padded times. `contextualise` takes such a
    mask.
    """

    family = "hubert_ecg"
    reader = "einthoven.weights.hubert_ecg:ENCODER"

    def __init__(self, config: HubertECGConfig) -> None:
        super().__init__(config, channels=1)
        self.shortest = -(-self.extractor.receptive_field // len(STANDARD_LEADS))
        self.longest = config.max_samples
        ordered = tuple(lead for lead in STANDARD_LEADS if lead in self.leads)
        if self.leads != ordered:
            raise BackboneError(
                f"{self.name}: leads = {self.leads} are not in the standard order, and its "
                "preparation lays them end to end",
                remedy=f"name them as {ordered}; signals are picked by name",
            )
        self._check_missing(self.leads)
        self.check_samples(config.window or config.max_samples)

    @property
    def preparation(self) -> Preparation:
        """Preparation of a record: the released chain.

        At the record's own rate a linear-phase band-pass of 0.05 to 47 Hz, whose 0.3 s are too
        short for its lower corner (it lets 96 % of a constant through), so that records of 100 and
        of 500 Hz come out differently; Fourier resampling to 500 Hz, whatever the rate of the
        input is to be; every lead scaled to -1 ... 1 by its extremes over the whole recording; a
        crop of 5 s; the crop's mean for values that are not numbers; and decimation by 5 of the
        leads laid end to end, whose filter smears their seams. A single NaN makes the whole lead
        NaN, as in the release.

        Evaluation takes three crops, the first of which is the one that the release evaluates.
        """
        samples = DECIMATION * (self.config.window or self.config.max_samples)
        return Preparation(
            leads=self.leads,
            steps=(
                *self._derive,
                Fir((0.05, 47.0), seconds=0.3),
                Resample(RATE),
                MinMax(),
                Window(samples, evaluation_crops=3),
                Fill("crop-mean"),
                Decimate(DECIMATION, over="end-to-end"),
            ),
        )

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens after the last block, (batch, tokens, width): 93 for 500 samples of each lead.

        An input has at most `max_samples` of each lead.
        """
        return self.contextualise(self.embed(x, leads=leads))

    def embed(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens before positions and blocks, each from 82 samples; shapes as for `tokens`.

        What masked objectives replace, at the tokens that they hide.
        """
        out: Tensor = self.projection(self.extractor(self._end_to_end(x, leads)))
        return out

    def contextualise(self, z: Tensor, valid: Tensor | None = None) -> Tensor:
        """Run positions and blocks, as in `Wav2VecBackbone`; padding counts as zeros before."""
        return super().contextualise(
            z if valid is None else z.masked_fill(~valid[..., None], 0.0), valid
        )

    def _end_to_end(self, x: Tensor, leads: Sequence[str] | None) -> Tensor:
        """Map (batch, leads, samples) to (batch, 1, 12 * samples), leads in standard order."""
        names = self.input_leads(x, leads)
        if names != STANDARD_LEADS:
            self._check_missing(names)
            shape = len(x), len(STANDARD_LEADS), x.shape[-1]
            if self.config.missing_leads == "mean":
                places = x.mean((1, 2), keepdim=True).repeat(1, *shape[1:])
            else:
                places = x.new_full(shape, FLAT_LEAD)
            places[:, lead_rows(names)] = x
            x = places
        return x.flatten(1).unsqueeze(1)

    def _check_missing(self, names: tuple[str, ...]) -> None:
        missing = [lead for lead in STANDARD_LEADS if lead not in names]
        follow = [lead for lead in missing if lead in derivable_leads(names)]
        if follow:
            raise BackboneError(
                f"{self.name}: leads = {names} leaves out {', '.join(follow)}, which can be "
                "derived from those, though not once each lead is scaled on its own",
                remedy=f"build it with leads={names}, whose preparation computes them in "
                "millivolts before anything else",
            )
        if missing and self.config.missing_leads == "refuse":
            raise BackboneError(
                f"{self.name}: leads = {names} leaves out {', '.join(missing)}, and the network "
                "reads all twelve",
                remedy="build it with missing_leads='mean' or 'zero', which fills their places; "
                "the public weights are not known to be trained with it; st_mem_base takes any set "
                "of leads",
            )


# Size; width, depth, heads; parameters; checksum of the public file.
_SIZES = (
    (
        "small",
        (512, 8, 8),
        30_209_152,
        "c78fa955268212f8ed20bc69fb1b882d76a4351df2466061335950949394a4d2",
    ),
    (
        "base",
        (768, 12, 12),
        92_798_080,
        "05bc1b1317f8e3063811a03fb840f5bf8a85968191e209c0cfbaa0c52c8aa1ae",
    ),
    (
        "large",
        (960, 16, 12),
        187_643_776,
        "9a0eb8484f73793aa678936984243da92ae80d7b81e2fe77d1ea6dee2bdf5ec2",
    ),
)

ENTRIES = tuple(
    Entry(
        network=HubertECG,
        config=HubertECGConfig(name=f"hubert_ecg_{size}", width=width, depth=depth, heads=heads),
        summary=f"HuBERT-ECG {size}: tokens of 0.82 s, twelve leads end to end, 100 Hz, 5 s",
        origin="HuBERT-ECG, medRxiv 2024",
        paper="Coppola et al., HuBERT-ECG: a self-supervised foundation model for broad and "
        "scalable cardiac applications, medRxiv 2024.11.14.24317328",
        parameters=parameters,
        weights_from=f"model.safetensors of huggingface.co/Edoardo-BS/hubert-ecg-{size}",
        weights_name=f"Edoardo-BS/hubert-ecg-{size}",
        weights_file="model.safetensors",
        weights_size="122 MB" if size == "small" else "",
        weights_sha256=sha256,
        pretraining_data="9.1 million 12-lead ECGs from four countries (the list was not checked "
        "for PTB-XL; the classifiers called SFT-CardioLearning were trained on it)",
        licence=Licence("CC-BY-NC-4.0", "", False),
        contains_ptbxl=None,
        classifiers_saw_ptbxl=True,
        recipes="hubert-ecg",
        missing_leads="it fills the places of the missing ones as missing_leads specifies",
    )
    for size, (width, depth, heads), parameters, sha256 in _SIZES
)
