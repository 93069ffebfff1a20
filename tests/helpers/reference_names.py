"""Names of the tensors in files of reference implementations that publish no weights.

Each table lists (pattern, replacement) pairs from a reference name to the name here. Tensors of
the backbone are given without `backbone.` in front; `unused.` marks what the network has no
counterpart of.
"""

from __future__ import annotations

import re


def _dense(sequence: str, linear: int) -> list[tuple[str, str]]:
    """Dense layers of the PTB-XL benchmark, which are numbered within a sequence."""
    return [
        (rf"^{sequence}\.{linear - 2}\.", "dense.norm1."),
        (rf"^{sequence}\.{linear}\.", "dense.linear."),
        (rf"^{sequence}\.{linear + 2}\.", "dense.norm2."),
        (rf"^{sequence}\.{linear + 4}\.", "head."),
    ]


TABLES: dict[str, list[tuple[str, str]]] = {
    "mtecg": [
        (r"^patch_embed\.proj\.", "patch_embed."),
        (r"^(decoder_|mask_token)", r"unused.\1"),
    ],
    "multiresnet": [
        (r"^encoder\.", "embedding."),
        (r"^seq_layers\.(\d+)\.h0$", r"blocks.\1.multires.low"),
        (r"^seq_layers\.(\d+)\.h1$", r"blocks.\1.multires.high"),
        (r"^seq_layers\.(\d+)\.w$", r"blocks.\1.multires.weights"),
        (r"^mixing_layers\.(\d+)\.0\.", r"blocks.\1.mix."),
        (r"^norms\.(\d+)\.", r"blocks.\1.norm."),
        (r"^output_mapping\.", "head."),
    ],
    "spacetime": [
        (r"^embedding\.layers\.", "embedding."),
        (r"^encoder\.blocks\.", "blocks."),
        (r"\.ssm\.skip", ".skip"),
        (r"\.ssm\.", ".kernel."),
        (r"\.mlp\.layers\.2\.", ".linear."),
    ],
    "fcn_wang": [
        *_dense("3", 4),
        (r"^(\d)\.0\.0\.", r"blocks.\1.conv."),
        (r"^(\d)\.0\.1\.", r"blocks.\1.norm."),
    ],
    "resnet1d_wang": [
        *_dense("6", 4),
        (r"^0\.", "stem.conv."),
        (r"^1\.", "stem.norm."),
        *((rf"^{block + 3}\.0\.", f"blocks.{block}.") for block in range(3)),
        (r"\.conv(\d)\.(?=weight)", r".conv\1.conv."),
        (r"\.bn(\d)\.", r".conv\1.norm."),
        (r"\.downsample\.0\.", ".shortcut.conv."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
    ],
    "xresnet1d101": [
        *_dense("8", 4),
        # The reference registers its convolutions twice, as `convs` and as `convpath`.
        (r"^(\d+\.\d+\.convpath\.)", r"unused.\1"),
        (r"^([012])\.0\.", r"stem.\1.conv."),
        (r"^([012])\.1\.", r"stem.\1.norm."),
        *((rf"^{stage + 4}\.(?=\d+\.)", f"stages.{stage}.") for stage in range(4)),
        *((rf"\.convs\.{conv}\.0\.", f".conv{conv + 1}.conv.") for conv in range(3)),
        *((rf"\.convs\.{conv}\.1\.", f".conv{conv + 1}.norm.") for conv in range(3)),
        (r"\.idpath\.0\.0\.", ".project.conv."),
        (r"\.idpath\.0\.1\.", ".project.norm."),
    ],
    "inception1d": [
        *_dense(r"layers\.1", 4),
        (r"^layers\.0\.sk\.(\d+)\.conv\.", r"blocks.\1.shortcut.conv."),
        (r"^layers\.0\.sk\.(\d+)\.bn\.", r"blocks.\1.shortcut.norm."),
        *(
            (rf"^layers\.0\.im\.{module}\.", f"blocks.{module // 3}.layers.{module % 3}.")
            for module in range(6)
        ),
        (r"\.conv_bottle\.1\.", ".pooled."),
        (r"\.bn_relu\.0\.", ".norm."),
    ],
    "lstm": [*_dense("5", 3), (r"^2\.", "lstm.")],
}


def renamed_key(table: str, key: str) -> str:
    """The name here of a tensor in a reference implementation."""
    for pattern, replacement in TABLES[table]:
        key = re.sub(pattern, replacement, key)
    return key if key.startswith(("head.", "unused.")) else f"backbone.{key}"
