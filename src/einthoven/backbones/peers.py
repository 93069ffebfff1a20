"""The catalogue of task-specific networks, which post-training has to beat."""

from __future__ import annotations

from typing import Any

from einthoven.backbones.entries import Entry

__all__ = ["PEERS"]

_BENCHMARK_SHORT = "PTB-XL benchmark, 2021"

_UNTRAINED: Any = {
    "pretraining_data": "none: trained from random weights",
    "weights_licence": "none: no public weights",
    "weights_from": "no public weights; train it with einthoven",
}

# Nobody publishes weights, but files of the benchmark's own runs are read; their data is PTB-XL.
_STRODTHOFF: Any = {
    "family": "strodthoff",
    "origin": _BENCHMARK_SHORT,
    "pretraining_data": "none when trained with einthoven, which begins at random weights; a file "
    "of the benchmark's own code was trained on PTB-XL",
    "weights_licence": "that of whoever trained the file",
    "weights_from": "no public weights in our sources; train it with einthoven, or give a file "
    "of your own run of the benchmark's code (helme/ecg_ptbxl_benchmarking)",
    "contains_ptbxl": None,
}
_BENCHMARK = (
    "Strodthoff et al., Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL, "
    "IEEE JBHI 25(5) 2021 (arXiv 2004.13701)"
)
_WANG = (
    f"{_BENCHMARK}; after Wang et al., Time Series Classification from Scratch with Deep Neural "
    "Networks: A Strong Baseline, IJCNN 2017 (arXiv 1611.06455)"
)
_XRESNET = (
    f"{_BENCHMARK}; after He et al., Bag of Tricks for Image Classification with Convolutional "
    "Neural Networks, CVPR 2019 (arXiv 1812.01187)"
)

PEERS: dict[str, Entry] = {
    "fcn_wang": Entry(
        factory="einthoven.backbones.fcn_wang:fcn_wang",
        summary="Three convolutions and no pooling between them, 100 Hz, 2.5 s",
        recipe="strodthoff",
        parameters=309_120,
        paper=_WANG,
        **_STRODTHOFF,
    ),
    "resnet1d_wang": Entry(
        factory="einthoven.backbones.resnet1d_wang:resnet1d_wang",
        summary="Residual network of three basic blocks, 128 channels, 100 Hz, 2.5 s",
        recipe="strodthoff",
        parameters=472_704,
        paper=_WANG,
        **_STRODTHOFF,
    ),
    "xresnet1d50": Entry(
        factory="einthoven.backbones.xresnet1d:xresnet1d50",
        summary="Residual network of 16 bottleneck blocks of 64 channels, 100 Hz, 2.5 s",
        recipe="strodthoff",
        parameters=953_344,
        paper=_XRESNET,
        **_STRODTHOFF,
    ),
    "xresnet1d101": Entry(
        factory="einthoven.backbones.xresnet1d:xresnet1d101",
        summary="Residual network of 33 bottleneck blocks of 64 channels, 100 Hz, 2.5 s",
        recipe="strodthoff",
        parameters=1_871_616,
        paper=_XRESNET,
        **_STRODTHOFF,
    ),
    "inception1d": Entry(
        factory="einthoven.backbones.inception1d:inception1d",
        summary="Six modules of kernels of 39, 19 and 9 samples at once, 100 Hz, 2.5 s",
        recipe="strodthoff",
        parameters=507_008,
        paper=f"{_BENCHMARK}; after Ismail Fawaz et al., InceptionTime: Finding AlexNet for Time "
        "Series Classification, Data Mining and Knowledge Discovery 34, 2020 (arXiv 1909.04939)",
        **_STRODTHOFF,
    ),
    "lstm": Entry(
        factory="einthoven.backbones.lstm:lstm",
        summary="Two recurrent layers of 256 units over every sample, 100 Hz, 2.5 s",
        recipe="strodthoff-rnn",
        parameters=903_040,
        paper=_BENCHMARK,
        **_STRODTHOFF,
    ),
    "lstm_bidir": Entry(
        factory="einthoven.backbones.lstm:lstm_bidir",
        summary="Two recurrent layers of 2 x 256 units in both directions, 100 Hz, 2.5 s",
        recipe="strodthoff-rnn",
        parameters=2_329_984,
        paper=_BENCHMARK,
        **_STRODTHOFF,
    ),
    "multiresnet": Entry(
        factory="einthoven.backbones.multiresnet:multiresnet",
        summary="MULTIRESNET: causal filters at ten scales over the whole record, 100 Hz, 10 s",
        origin="Shi et al. 2023",
        recipe="multiresnet",
        parameters=213_632,
        family="multiresnet",
        paper="Shi et al., Sequence Modeling with Multiresolution Convolutional Memory, ICML 2023",
        **_UNTRAINED,
    ),
    "wavelet_nn": Entry(
        factory="einthoven.backbones.wavelet_nn:wavelet_nn",
        summary="Wavelet+NN: 864 statistics of wavelet coefficients, one dense layer, 100 Hz, 10 s",
        origin=_BENCHMARK_SHORT,
        recipe="wavelet-nn",
        parameters=110_720,
        family="wavelet_nn",
        paper=_BENCHMARK,
        **_UNTRAINED,
    ),
    "spacetime": Entry(
        factory="einthoven.backbones.spacetime:spacetime",
        summary="SpaceTime, our reading: companion state-space layers, 100 Hz, 10 s",
        origin="our reading of SpaceTime",
        recipe="spacetime",
        parameters=145_024,
        family="spacetime",
        paper="Zhang et al., Effectively Modeling Time Series with Simple Discrete State Spaces, "
        "ICLR 2023",
        **_UNTRAINED,
    ),
    "chimera": Entry(
        factory="einthoven.backbones.chimera:chimera",
        summary="Chimera, our reading: state-space layers over leads and time, 100 Hz, 2.5 s",
        origin="our reading of Chimera",
        recipe="chimera",
        parameters=223_040,
        family="chimera",
        paper="Behrouz et al., Chimera: Effectively Modeling Multivariate Time Series with "
        "2-Dimensional State Space Models, NeurIPS 2024 (arXiv 2406.04320)",
        **_UNTRAINED,
    ),
    "msw_transformer": Entry(
        factory="einthoven.backbones.msw_transformer:msw_transformer",
        summary="MSW-Transformer, our reading: one layer, windows of three sizes, 100 Hz, 10 s",
        origin="our reading of its paper",
        recipe="msw-transformer",
        parameters=338_703,
        family="msw_transformer",
        paper="Cheng et al., MSW-Transformer: Multi-Scale Shifted Windows Transformer Networks "
        "for 12-Lead ECG Classification, 2023 (arXiv 2306.12098)",
        **_UNTRAINED,
    ),
}
"""Trained from random weights; nobody publishes any."""
