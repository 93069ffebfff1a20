"""Models as folders in the form of the Hugging Face hub.

::

    config.json                what it is: backbone and options, labels, preparation, checksum
    model.safetensors          its weights
    preprocessor_config.json   what is done to a signal, for those who only want to know that
    README.md                  the card, with the metadata that the hub shows and searches

`save_pretrained` and `from_pretrained` are functions and not methods of the networks, because a
backbone knows nothing of files: rooms import downwards. Nothing is pickled, and nothing in a folder
is run: the network is built from its registered name. Folders on disk need nothing else; a name on
the hub, `owner/model`, needs the extra `hub`.
"""

from einthoven.hub.pretrained import from_pretrained, save_pretrained

__all__ = ["from_pretrained", "save_pretrained"]
