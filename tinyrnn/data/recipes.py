"""What is made of a fetched package by a program: ``python -m tinyrnn.data.recipes NAME SOURCE FOLDER``.

`fetch` runs a recipe once, in a process of its own whose modules come first from SOURCE, the package's unpacked files.
It is the only place where code of such a package runs. What a recipe writes into FOLDER is what the set keeps.
"""

from __future__ import annotations

import ctypes
import random
import sys
import unicodedata
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.data.sound import SAMPLE_RATE

GLYPH_SIZE = 24
SCRIPTS = ("LATIN", "GREEK", "CYRILLIC")
FACES = ("Sans", "Sans-Bold", "Serif", "Serif-Bold", "SansMono", "SansMono-Bold")
DATE_FORMATS = ("full", "long", "medium", "short", "EEE d MMM y")
ACCENTS = ("en", "en-us", "en-us-nyc", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLIPS_PER_VOICE = 20

Samples = npt.NDArray[np.int16]


def make_glyphs(source: Path, folder: Path) -> None:
    """Draw the letters of the DejaVu fonts into glyphs.npz: images uint8 (N, 24, 24), captions (N,)."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        sys.exit("drawing glyphs needs Pillow; install it with: pip install pillow")
    names = ((character, unicodedata.name(character, "")) for character in map(chr, range(sys.maxunicode + 1)))
    wanted = [(character, name.lower()) for character, name in names if name.partition(" ")[0] in SCRIPTS]
    images, captions = [], []
    for face in FACES:
        (file,) = source.rglob(f"DejaVu{face}.ttf")
        # With a text size of 16 and the baseline in row 17, the highest accents and the deepest tails fit.
        font = ImageFont.truetype(file, 16, layout_engine=ImageFont.Layout.BASIC)
        missing = _drawn(Image, ImageDraw, font, "\uffff")
        for character, name in wanted:
            image = _drawn(Image, ImageDraw, font, character)
            if image.any() and not np.array_equal(image, missing):
                images.append(image)
                captions.append(name)
    np.savez_compressed(folder / "glyphs.npz", images=images, captions=captions)


def _drawn(image: Any, draw: Any, font: Any, character: str) -> npt.NDArray[np.uint8]:
    """Draw one character in white on black, its baseline where that of all others is."""
    canvas = image.new("L", (GLYPH_SIZE, GLYPH_SIZE))
    draw.Draw(canvas).text((GLYPH_SIZE // 2, 17), character, fill=255, font=font, anchor="ms")
    return np.asarray(canvas, np.uint8)


def make_numbers(source: Path, folder: Path) -> None:
    """Write numbers and their German words into numbers.tsv: all below 10,000, and 10,000 below a million."""
    from num2words import num2words

    numbers = [*range(10_000), *sorted(random.Random(0).sample(range(10_000, 1_000_000), 10_000))]
    _write_pairs(folder / "numbers.tsv", ((str(number), num2words(number, lang="de")) for number in numbers))


def make_dates(source: Path, folder: Path) -> None:
    """Write 20,000 dates of 200 years, each in one of five French formats and as year-month-day, into dates.tsv."""
    from babel.dates import format_date

    chance = random.Random(0)
    first = date(1900, 1, 1)
    days = [first + timedelta(days) for days in chance.sample(range((date(2100, 1, 1) - first).days), 20_000)]
    written = (format_date(day, format=chance.choice(DATE_FORMATS), locale="fr") for day in days)
    _write_pairs(folder / "dates.tsv", zip(written, map(str, days), strict=True))


def _write_pairs(file: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write a line for each pair, with a tab between its two."""
    file.write_text("".join(f"{first}\t{second}\n" for first, second in pairs), encoding="utf-8", newline="\n")


def make_speech(source: Path, folder: Path) -> None:
    """Let eSpeak NG say one to five digits in many voices, into speech.npz.

    samples: int16, all clips one after the other, 8,000 a second. ends (N,): where each clip ends. digits, voices (N,).
    """
    say = _synthesizer(source)
    chance = random.Random(0)
    clips, digits, voices = [], [], []
    for file in sorted(source.rglob("voices/!v/*")):
        for _ in range(CLIPS_PER_VOICE):
            said = [chance.randrange(10) for _ in range(chance.randint(1, 5))]
            voice = f"{chance.choice(ACCENTS)}+{file.name}"
            clips.append(say(" ".join(DIGITS[digit] for digit in said), voice, chance.randint(140, 200)))
            digits.append("".join(map(str, said)))
            voices.append(file.name)
    ends = np.cumsum([len(clip) for clip in clips])
    np.savez_compressed(folder / "speech.npz", samples=np.concatenate(clips), ends=ends, digits=digits, voices=voices)


def _synthesizer(source: Path) -> Callable[[str, str, int], Samples]:
    """Load the library of eSpeak NG, and return a function of text, voice and words a minute."""
    SYNCHRONOUS, POSITION_CHARACTER, RATE, UTF8 = 2, 1, 1, 1  # of espeak-ng/speak_lib.h
    library = next(file for pattern in ("*.so", "*.dylib", "*.dll") for file in source.rglob(pattern))
    (data,) = source.rglob("espeak-ng-data")
    espeak = ctypes.CDLL(str(library))
    rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, str(data).encode(), 0)
    if rate <= 0:
        sys.exit(f"eSpeak NG does not start with the data in {data}")
    heard = bytearray()

    def listen(samples: int | None, count: int, events: int | None) -> int:
        if samples and count > 0:
            heard.extend(ctypes.string_at(samples, count * 2))
        return 0  # go on

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(listen)
    espeak.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    ]

    def say(text: str, voice: str, words_per_minute: int) -> Samples:
        heard.clear()
        encoded = text.encode()
        espeak.espeak_SetSynthCallback(callback)  # here, so that it lives as long as `say`
        for failed in (
            espeak.espeak_SetVoiceByName(voice.encode()),
            espeak.espeak_SetParameter(RATE, words_per_minute, 0),
            espeak.espeak_Synth(encoded, len(encoded) + 1, 0, POSITION_CHARACTER, 0, UTF8, None, None),
        ):
            if failed:
                sys.exit(f"eSpeak NG cannot say {text!r} as {voice}: error {failed}")
        return _resampled(np.frombuffer(bytes(heard), np.int16), rate)

    return say


def _resampled(samples: Samples, rate: int) -> Samples:
    """Return a clip at `SAMPLE_RATE`: its spectrum, cut off where the new rate ends."""
    count = round(len(samples) * SAMPLE_RATE / rate)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    clip = np.fft.irfft(spectrum, count) * (count / len(samples))
    return np.clip(np.round(clip), -32768, 32767).astype(np.int16)


RECIPES = {"glyphs": make_glyphs, "numbers": make_numbers, "dates": make_dates, "speech": make_speech}


if __name__ == "__main__":
    recipe, source, folder = sys.argv[1:]
    RECIPES[recipe](Path(source), Path(folder))
