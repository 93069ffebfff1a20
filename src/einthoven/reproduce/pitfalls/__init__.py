"""How much the common ways to get PTB-XL wrong change a result, measured: `docs/protocol.md`.

The protocol's own numbers stand beside those of every mistake, on the same records. What needs a
trained network takes one that is finished; what is about splitting takes random convolutions, which
learn nothing from anybody, under a linear probe and under nearest neighbours.
"""
