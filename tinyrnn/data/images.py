"""Small pictures: handwritten digits, and the glyphs of a font with their names."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.data.splits import Split, split_by_key

Array = npt.NDArray[Any]


def read_digits(folder: Path) -> Split[list[tuple[Array, int]]]:
    """Read handwritten digits: pairs of an image, float32 (8, 8) from 0 to 1, and the digit that it shows.

    Row by row, an image is a sequence of 8 steps. Who wrote a digit is not recorded, so the split is by image.
    """
    (file,) = folder.rglob("digits.csv.gz")
    with gzip.open(file, "rt", encoding="ascii") as rows:
        table = np.loadtxt(rows, delimiter=",", dtype=np.float32)
    images = table[:, :64].reshape(-1, 8, 8) / 16
    examples = [(image, int(digit)) for image, digit in zip(images, table[:, 64], strict=True)]
    parts = split_by_key(range(len(examples)), key=int)
    return Split(*([examples[i] for i in part] for part in parts))


def read_glyphs(folder: Path) -> Split[list[tuple[Array, str]]]:
    """Read glyphs: pairs of an image, float32 (24, 24) from 0 to 1, and its caption.

    The caption is the character's name in Unicode in small letters, as in "latin small letter a with diaeresis". A
    character is shown in six faces (sans, serif and mono, regular and bold), which are all in the same part.
    """
    (file,) = folder.rglob("glyphs.npz")
    with np.load(file, allow_pickle=False) as stored:
        images, captions = stored["images"].astype(np.float32) / 255, stored["captions"].tolist()
    return split_by_key(zip(images, captions, strict=True), key=lambda example: example[1])
