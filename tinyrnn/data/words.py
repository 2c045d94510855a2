"""From one spelling to another: numbers to words, written dates to year-month-day, words to phonemes."""

from __future__ import annotations

from pathlib import Path

from tinyrnn.data.splits import Split, split_by_key

Phones = tuple[str, ...]


def read_numbers(folder: Path) -> Split[list[tuple[str, str]]]:
    """Read numbers: pairs of digits and German words, ("42", "zweiundvierzig"). Split by number."""
    return split_by_key(_read_pairs(folder, "numbers.tsv"), key=lambda example: example[0])


def read_dates(folder: Path) -> Split[list[tuple[str, str]]]:
    """Read dates: pairs of French in five formats and year-month-day, ("21 nov. 2026", "2026-11-21"). Split by date."""
    return split_by_key(_read_pairs(folder, "dates.tsv"), key=lambda example: example[1])


def _read_pairs(folder: Path, name: str) -> list[tuple[str, str]]:
    """Read a file with two entries in each line."""
    (file,) = folder.rglob(name)
    lines = file.read_text(encoding="utf-8").splitlines()
    return [(first, second) for first, second in (line.split("\t") for line in lines)]


def read_pronounce(folder: Path) -> Split[list[tuple[str, list[Phones]]]]:
    """Read English words: pairs of the spelling and its pronunciations, ("tomato", [("T", "AH", ...), ("T", ...)]).

    The 39 phones are those of ARPAbet, without marks of stress. Most words have one pronunciation; the first is the
    usual one, to learn, and any of them is right. Split by word.
    """
    (file,) = folder.rglob("cmudict.dict")
    words: dict[str, list[Phones]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        spelling, *phones = line.partition("#")[0].split()  # what follows "#" is a remark
        word = spelling.partition("(")[0]  # "tomato(2)" is the second way to say tomato
        pronunciation = tuple(phone.rstrip("012") for phone in phones)
        known = words.setdefault(word, [])
        if pronunciation not in known:
            known.append(pronunciation)
    return split_by_key(words.items(), key=lambda example: example[0])
