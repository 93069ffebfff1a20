"""ECG-FM: a wav2vec 2.0 encoder over twelve leads at once.

McKeen et al., "ECG-FM: an open electrocardiogram foundation model", JAMIA Open 8(5), 2025, ooaf122
(arXiv 2408.05178, whose first version describes another, larger network). Five seconds of twelve
leads at 500 Hz go through four convolutions of two samples each; the 156 tokens that come out stand
for 32 ms each and do not overlap. The rest is wav2vec 2.0 of the base size. It was pretrained by
contrastive prediction of masked tokens and of the other half of a recording, half of all leads
zeroed at random (`einthoven.objectives.ecg_fm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from einthoven.backbones.config import Count, Counts
from einthoven.backbones.layers.wav2vec import (
    Wav2VecBackbone,
    Wav2VecConfig,
    mean_of_valid,
    valid_tokens,
)
from einthoven.backbones.leads import on_twelve_leads
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.licences import Licence
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Standardise, Window

RATE = 500


@dataclass(frozen=True, kw_only=True)
class ECGFMConfig(Wav2VecConfig):
    """Configuration of an ECG-FM encoder.

    `layerdrop` is 0 in every released setting, `attention_dropout` 0.1 in the released pretraining
    and 0 in the released fine-tuning.

    Attributes
    ----------
    extractor_gradient : float
        Factor of the gradient that reaches the extractor. 1 trains it like the rest, 0 freezes it,
        as the released fine-tuning does, and saves its backward pass; the released pretraining
        takes 0.1 (`einthoven.objectives.ecg_fm` sets that itself).
    missing_leads : {"zero", "refuse"}
        What happens to an input without some of the twelve leads, see `ECGFM`.
    window : int
        Samples of the prepared input.
    """

    width: Count = 768
    depth: Count = 12
    heads: Count = 12
    conv_width: Count = 256
    conv_kernels: Counts = (2, 2, 2, 2)
    conv_strides: Counts = (2, 2, 2, 2)
    extractor_gradient: Annotated[float, Field(ge=0, le=1)] = 1.0
    missing_leads: Literal["zero", "refuse"] = "zero"
    window: Count = 2500


class ECGFM(Wav2VecBackbone):
    """The ECG-FM encoder.

    Notes
    -----
    The norms have eps 1e-5, and there is none behind the last block: its blocks normalise after
    each addition. Features are the mean of the tokens, as in the released classifier, which divides
    by the number of values that are not exactly zero; that is the same but for a coincidence.

    *Lengths.* Any number of samples from 16 on: nothing in the network counts positions. It was
    pretrained on 5 s; others have given it 10 s at once (312 tokens).

    *Fewer leads.* All twelve places are always there, and a lead that an input does not name is
    zero in it. That is what the network was pretrained on: every lead of every segment was zeroed
    with probability 0.5. Leads are named (`leads=`, or the field `leads`); an input of fewer than
    twelve rows without names is refused, so that no row is taken for another lead.
    ``missing_leads="refuse"`` requires twelve leads. Limb leads that follow from those of
    the field `leads` (III from I and II) are computed by the preparation, in millivolts; once each
    lead is scaled on its own their law is lost, so that what is missing at call time is zero
    whether or not it follows. With all leads zero the features are finite and mean nothing.

    *What stays frozen.* Nothing by default. The released fine-tuning freezes the extractor and
    trains everything else from the first step: `freeze_extractor` of a recipe, or
    ``extractor_gradient=0``. `freeze_positions` freezes the positional convolution.

    *Left out.* The vector that stands in for masked tokens, the quantiser and its projections:
    they belong to the pretraining objective.
    """

    family = "ecg_fm"
    reader = "einthoven.weights.ecg_fm:ENCODER"

    def __init__(self, config: ECGFMConfig) -> None:
        super().__init__(config, channels=len(STANDARD_LEADS))
        self.shortest = self.extractor.receptive_field
        self._check_missing(self.leads)
        self.check_samples(config.window)
        if config.extractor_gradient == 0:
            self.extractor.requires_grad_(False)

    @property
    def preparation(self) -> Preparation:
        """Preparation of a record: the released chain.

        Piecewise linear resampling to 500 Hz, every lead standardised on its own over the whole
        recording (a flat lead becomes zero), no filter, segments of 5 s. A recording is evaluated
        on two segments, which for 10 s are those of the release: its two halves.
        """
        return Preparation(
            leads=self.leads,
            steps=(
                *self._derive,
                Resample(RATE, method="linear"),
                Standardise(over="lead"),
                Window(self.config.window, evaluation_crops=2),
            ),
        )

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens after the last block, (batch, tokens, width): 156 of them for 2,500 samples."""
        return self.contextualise(self.projection(self.extract(x, leads=leads)))

    def features(
        self,
        x: Tensor,
        *,
        leads: Sequence[str] | None = None,
        valid_samples: Tensor | None = None,
    ) -> Tensor:
        """The mean of the tokens.

        Parameters
        ----------
        x, leads
            As for `tokens`.
        valid_samples : Tensor, optional
            (batch,) integers: how many samples of each input, from its start, are the record. What
            follows is padding, which the blocks do not see and the mean leaves out.

        Returns
        -------
        Tensor, shape (batch, feature_dim)
        """
        if valid_samples is None:
            return self.tokens(x, leads=leads).mean(1)
        z = self.projection(self.extract(x, leads=leads))
        valid = valid_tokens(self.extractor, valid_samples, tokens=z.shape[1])
        return mean_of_valid(self.contextualise(z, valid), valid)

    def extract(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Output of the convolutions; (batch, leads, samples) to (batch, tokens, conv).

        The targets of pretraining come from it.
        """
        names = self.input_leads(x, leads)
        self._check_missing(names)
        out: Tensor = self.extractor(on_twelve_leads(x, names))
        return scaled_gradient(out, self.config.extractor_gradient)

    def _check_missing(self, leads: tuple[str, ...]) -> None:
        missing = [lead for lead in STANDARD_LEADS if lead not in leads]
        if missing and self.config.missing_leads == "refuse":
            raise BackboneError(
                f"{self.name}: leads = {leads} leaves out {', '.join(missing)}, and "
                "missing_leads is 'refuse'",
                remedy="give all twelve leads, or take missing_leads='zero', which the public "
                "weights were pretrained on",
            )


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """The same values; gradients that flow back through them are multiplied by a factor."""
    if factor == 0:
        return x.detach()
    if factor == 1 or not x.requires_grad:
        return x
    out = x.view_as(x)  # a hook on x itself would stay on what others hold
    out.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
    return out


ENTRIES = (
    Entry(
        network=ECGFM,
        config=ECGFMConfig(name="ecg_fm"),
        summary="ECG-FM: wav2vec 2.0 of the base size over twelve leads, 500 Hz, 5 s",
        origin="ECG-FM, JAMIA Open 2025",
        paper="McKeen et al., ECG-FM: an open electrocardiogram foundation model, JAMIA Open "
        "8(5) 2025, ooaf122 (arXiv 2408.05178)",
        parameters=90_373_248,
        weights_from="file mimic_iv_ecg_physionet_pretrained.pt of huggingface.co/wanglab/"
        "ecg-fm-preprint (size and checksum are of this file), or of wanglab/ecg-fm",
        weights_name="wanglab/ecg-fm-preprint",
        weights_file="mimic_iv_ecg_physionet_pretrained.pt",
        weights_size="1,090,825,421 bytes",
        weights_sha256="4d0142bcb485eb9f0c7845e0c19ff3463f6ae9d0e458eab69136efe90ceb9b7e",
        pretraining_data="MIMIC-IV-ECG and PhysioNet/CinC 2021, whose training set includes "
        "PTB-XL (873,706 records, 699,001 of them for training)",
        licence=Licence("MIT", "", True),
        contains_ptbxl=True,
        recipes="ecg-fm",
        pretraining_recipe="ecg-fm",
        missing_leads="the channels of the missing ones are zero, as half of them were in its "
        "pretraining",
    ),
)
