"""Masked reconstruction: hide patches, encode the rest, predict what was hidden.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022; for ECGs ST-MEM (Na et al.,
ICLR 2024), which masks every lead on its own and decodes every lead on its own, and MTECG (Zhou et
al., arXiv 2309.07136), which masks segments of all leads together.

One class serves both, because both see a grid of patches (batch, rows, patches): ST-MEM has a row
for every lead, MTECG a single row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d

from einthoven.backbones.contract import Backbone, PatchBackbone
from einthoven.backbones.layers.patches import sincos_positions
from einthoven.backbones.layers.transformer import Block, initialise_linears
from einthoven.backbones.registry import entry
from einthoven.errors import BackboneError, RecipeError, validated
from einthoven.objectives.masks import draw_masking, gather_patches, kept_count
from einthoven.objectives.objective import ObjectiveOutput, with_options

Target = Literal["segment-standardised", "lead-mean-removed", "baseline-removed", "raw"]
BASELINE_S = 0.6  # about one beat: shorter would follow the T wave, longer lets drift through


def standardise_patches(patches: Tensor) -> Tensor:
    """Centre each patch and divide by the root of its unbiased variance plus 1e-6.

    MAE's and ST-MEM's normalised-pixel target (`norm_pix_loss`); (..., values) in and out.
    """
    centred = patches - patches.mean(-1, keepdim=True)
    return centred / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def remove_baseline(x: Tensor, rate: float) -> Tensor:
    """Subtract a moving average of about 0.6 s from every lead; rate in Hz."""
    half = round(BASELINE_S * rate / 2)
    window = 2 * half + 1
    return x - avg_pool1d(x, window, stride=1, padding=half, count_include_pad=False)


def make_target(kind: Target, x: Tensor, backbone: PatchBackbone) -> Tensor:
    """Compute the reconstruction target of every patch of (batch, leads, samples).

    The first three kinds are readings of MTECG's "fluctuated" target, whose definition is not
    public: (a) per-segment standardisation, (b) each lead's segment without its mean, (c) the
    signal without its slow baseline (a moving average of 0.6 s, our choice). None is claimed to be
    it.

    Returns
    -------
    Tensor, shape (batch, rows, patches, values), float32, without gradient
    """
    x = x.detach().float()
    if kind == "baseline-removed":
        x = remove_baseline(x, backbone.rate)
    patches = backbone.patch_grid(x)
    if kind == "segment-standardised":
        return standardise_patches(patches)
    if kind == "lead-mean-removed":
        by_lead = patches.reshape(*patches.shape[:-1], -1, backbone.patch)
        return (by_lead - by_lead.mean(-1, keepdim=True)).flatten(-2)
    return patches


@validated("mae", RecipeError)
class MAEConfig:
    """Masking and decoder of a masked autoencoder.

    Attributes
    ----------
    mask_ratio : float
        Share of the patches of every row to hide.
    masking : {"per-lead", "all-lead"}
        Draw the hidden patches for every row on its own, or once for all rows of a record. A
        network with a single row (MTECG) always hides all leads together.
    target : str
        See `einthoven.objectives.mae.make_target`.
    decoder_width, decoder_depth, decoder_heads : int
        Size of the decoder.
    block_eps : float
        Epsilon of the layer norms inside the decoder's blocks.
    """

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    masking: Literal["per-lead", "all-lead"] = "per-lead"
    target: Target = "segment-standardised"
    decoder_width: PositiveInt = 256
    decoder_depth: PositiveInt = 4
    decoder_heads: PositiveInt = 4
    block_eps: PositiveFloat = 1e-5


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskedOutput(ObjectiveOutput):
    """Loss and its intermediate results.

    Attributes
    ----------
    prediction : Tensor, shape (batch, rows, patches, values)
        Prediction of every patch, hidden or not.
    mask : Tensor, shape (batch, rows, patches)
        1 where the patch was hidden.
    latent : Tensor, shape (batch, rows * (special + kept), dim)
        Output of the encoder, row by row.
    """

    prediction: Tensor
    mask: Tensor
    latent: Tensor


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error averaged over the values of a patch, then over the hidden patches.

    Prediction and target are (..., patches, values); the mask, (..., patches), is 1 where a patch
    is hidden.
    """
    per_patch = (prediction.float() - target).square().mean(-1)
    return (per_patch * mask).sum() / mask.sum()


class RowDecoder(nn.Module):
    """Predict every patch, of some values, from the encoded ones; rows do not see each other."""

    def __init__(self, backbone: PatchBackbone, values: int, config: MAEConfig) -> None:
        super().__init__()
        width = config.decoder_width
        before, after = backbone.special_tokens
        self.special_tokens = before, after
        positions = sincos_positions(backbone.max_patches, width, before=before, after=after)
        self.embed = nn.Linear(backbone.feature_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(positions, requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(width, config.decoder_heads, eps=config.block_eps)
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, values)
        initialise_linears(self, rule="xavier")
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, encoded: Tensor, restore: Tensor) -> Tensor:
        """Predict all patches, (batch, rows, patches, values).

        `encoded` is (batch, rows, special + kept, dim), `restore` (batch, rows, patches).
        """
        patches, before = restore.shape[-1], self.special_tokens[0]
        tokens = self._unshuffle(self.embed(encoded), restore)
        x = (tokens + self._row_positions(patches)).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        predicted: Tensor = self.head(self.norm(x[:, before : before + patches]))
        return predicted.reshape(*restore.shape, -1)

    def _unshuffle(self, embedded: Tensor, restore: Tensor) -> Tensor:
        before, after = self.special_tokens
        end = embedded.shape[2] - after
        visible = embedded[:, :, before:end]
        hidden = restore.shape[-1] - visible.shape[2]
        masks = self.mask_token.to(visible.dtype).expand(*visible.shape[:2], hidden, -1)
        patches = gather_patches(torch.cat([visible, masks], dim=2), restore)
        return torch.cat([embedded[:, :, :before], patches, embedded[:, :, end:]], dim=2)

    def _row_positions(self, patches: int) -> Tensor:
        # A shorter row uses the first patch positions and still the last special ones.
        before, after = self.special_tokens
        first = self.positions[:, : before + patches]
        return torch.cat([first, self.positions[:, self.positions.shape[1] - after :]], dim=1)


class MaskedAutoencoder(nn.Module):
    """A backbone with a decoder that predicts hidden patches.

    Parameters
    ----------
    backbone : PatchBackbone
        The encoder; its weights are left as they are. For pretraining from scratch build it with
        ``init="pretraining"`` (or use `einthoven.objectives.create_pretraining`).
    config : MAEConfig
        Masking and decoder.

    Raises
    ------
    RecipeError
        For a masked ratio that hides no patch or every patch.
    """

    def __init__(self, backbone: PatchBackbone, config: MAEConfig) -> None:
        super().__init__()
        kept_count(backbone.max_patches, config.mask_ratio)
        self.backbone = backbone
        self.config = config
        example = torch.empty(1, len(backbone.leads), backbone.patch, device="meta")
        self.decoder = RowDecoder(backbone, backbone.patch_grid(example).shape[-1], config)

    def forward(
        self,
        x: Tensor,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> MaskedOutput:
        """Loss of a batch.

        Parameters
        ----------
        x : Tensor, shape (batch, leads, samples)
            Prepared signals with the backbone's leads.
        noise : Tensor, optional
            Takes the place of the random draw; (batch, rows, patches), one row for "all-lead".
        generator : torch.Generator, optional
            Source of the draw.
        """
        grid = self.backbone.embed_grid(x)
        batch, rows, patches = grid.shape[:3]
        masking = draw_masking(
            (batch, rows, patches),
            self.config.mask_ratio,
            per_row=self.config.masking == "per-lead",
            noise=noise,
            generator=generator,
            device=grid.device,
        )
        encoded = self.backbone.encode_grid(gather_patches(grid, masking.keep))
        prediction = self.decoder(encoded, masking.restore)
        target = make_target(self.config.target, x, self.backbone)
        loss = masked_mse(prediction, target, masking.mask)
        return MaskedOutput(
            loss=loss,
            metrics={"reconstruction_loss": loss.detach(), "masked": masking.mask.mean()},
            prediction=prediction,
            mask=masking.mask,
            latent=encoded.flatten(1, 2),
        )


def create_mae(backbone: Backbone, **options: Any) -> MaskedAutoencoder:
    """A masked autoencoder with the defaults of the backbone's catalogue entry.

    Options are fields of `MAEConfig` that differ from these defaults.

    Raises
    ------
    BackboneError
        If the backbone has no patches to hide.
    """
    if not isinstance(backbone, PatchBackbone):
        raise BackboneError(
            f"{backbone.name} has no patches that could be hidden",
            remedy="choose a backbone of patches such as st_mem_base",
        )
    defaults = MAEConfig(**entry(backbone.name).mae)
    return MaskedAutoencoder(backbone, with_options(defaults, options))
