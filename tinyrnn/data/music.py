"""Bach's chorales as pitches, and folk tunes as text."""

from __future__ import annotations

import re
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from tinyrnn.data.splits import Split, split_by_key

Array = npt.NDArray[Any]

STEPS_PER_QUARTER = 4  # a step is a sixteenth note
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
HEADERS = "TRMLK"  # of a tune: title, rhythm, metre, length of a note, key
REST = 0


def read_chorales(folder: Path) -> Split[list[Array]]:
    """Read chorales: each an int64 array (T, 4), the pitch of each voice in each sixteenth step.

    The columns are soprano, alto, tenor, bass. Pitches are MIDI's (60 is middle C); 0 is a rest. A note that is held
    and one that is struck again look the same. Repeats are not played, and keys are those of the score: add a number to
    whatever is not 0 to transpose.

    Pieces of more or fewer than four voices, or with notes shorter than a step, are left out, and so are copies.
    Chorales whose sopranos begin alike, in whatever key, are in the same part.
    """
    read = [_chorale(file) for file in sorted(folder.rglob("bwv*.mxl"))]
    chorales = {chorale.tobytes(): chorale for chorale in read if chorale is not None}
    return split_by_key(chorales.values(), key=_melody)


def _melody(chorale: Array) -> list[int]:
    """Return how the soprano moves from note to note at first, which is the same in every key."""
    soprano = chorale[:, 0]
    moves = np.diff(soprano[soprano != REST])
    return moves[moves != 0][:12].tolist()


def _chorale(file: Path) -> Array | None:
    """Read one compressed MusicXML file; None if it is not of four voices in sixteenth steps."""
    with zipfile.ZipFile(file) as archive:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        rootfile = container.find(".//{*}rootfile")
        score = ElementTree.fromstring(archive.read(rootfile.attrib["full-path"] if rootfile is not None else ""))
    voices = [_voice(part) for part in score.findall("part")]
    if len(voices) != 4 or len({None if voice is None else len(voice) for voice in voices}) != 1 or voices[0] is None:
        return None
    return np.array(voices, np.int64).T


def _voice(part: ElementTree.Element) -> list[int] | None:
    """Return the pitch of each step of one part; None where notes sound together or are too short."""
    pitches: list[int] = []
    divisions = 1  # of a quarter note
    for element in part.iter():
        if element.tag == "divisions":
            divisions = int(element.text or 1)
        elif element.tag == "backup" or (element.tag == "note" and element.find("chord") is not None):
            return None
        elif element.tag == "note" and element.find("grace") is None:
            steps = Fraction(int(element.findtext("duration", "0")) * STEPS_PER_QUARTER, divisions)
            if steps.denominator != 1:
                return None
            pitches += [_pitch(element)] * int(steps)
    return pitches


def _pitch(note: ElementTree.Element) -> int:
    """Return the MIDI pitch of a note, or of a rest."""
    pitch = note.find("pitch")
    if pitch is None:
        return REST
    octave, alter = int(pitch.findtext("octave", "4")), int(pitch.findtext("alter", "0"))
    return 12 * (octave + 1) + SEMITONES[pitch.findtext("step", "C")] + alter


def read_tunes(folder: Path) -> Split[list[str]]:
    """Read tunes in ABC notation: each a string, a few lines that begin with a letter and a colon, then the notes.

        T:Dance Of The Honey-Bees
        M:2/4
        L:1/8
        K:G
        ...

    Of the headers, title, rhythm, metre, note length and key are kept, and comments are not. A tune that is in several
    files is kept once. Versions of a tune, by title, are in the same part.
    """
    texts = [file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.abc"))]
    parts = [part for text in texts for part in re.split(r"^X:.*\n", text, flags=re.MULTILINE)[1:]]
    tunes = dict.fromkeys(filter(None, map(_tune, parts)))
    return split_by_key(tunes, key=_title)


def _tune(text: str) -> str:
    """Return the wanted headers of a tune and its notes, "" if it has no notes."""
    lines = [line.split("%")[0].strip() for line in text.splitlines()]
    headers = [line for line in lines if re.match(f"[{HEADERS}]:", line)]
    notes = [line for line in lines if line and not re.match(r"[A-Za-z]:", line)]
    return "\n".join(re.sub(r"^(.):\s*", r"\1:", line) for line in headers + notes) if notes else ""


def _title(tune: str) -> str:
    """Return the letters of a tune's title."""
    found = re.search(r"^T:(.*)$", tune, flags=re.MULTILINE)
    return re.sub(r"[^a-z]", "", found[1].lower()) if found else tune
