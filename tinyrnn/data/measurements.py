"""Measured sequences: the sound of a speaker's vowels, and the weather."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyrnn.data.splits import Split

Array = npt.NDArray[Any]


def read_speakers(folder: Path) -> Split[list[tuple[Array, int]]]:
    """Read utterances of two vowels: pairs of float32 (T, 12), cepstrum coefficients in time, and the speaker, 0 to 8.

    Test is the standard test set. Of the standard training set, 30 utterances a speaker, the last 3 of each validate.
    """
    standard = _utterances(folder, "TRAIN")
    train = [example for i, example in enumerate(standard) if i % 30 < 27]
    validation = [example for i, example in enumerate(standard) if i % 30 >= 27]
    return Split(train, validation, _utterances(folder, "TEST"))


def _utterances(folder: Path, part: str) -> list[tuple[Array, int]]:
    """Read one .ts file: in each line the 12 series, separated by colons, and the label."""
    (file,) = folder.rglob(f"JapaneseVowels_{part}.ts")
    utterances = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#@":
            *series, label = line.split(":")
            x = np.array([values.split(",") for values in series], np.float32).T
            utterances.append((x, int(label) - 1))
    return utterances


def read_weather(folder: Path) -> Split[Array]:
    """Read the weather of Seattle, measured day by day: float32 (T, 4).

    The columns are precipitation in mm, highest and lowest temperature in °C, and wind in m/s. 2012 and 2013 train,
    2014 validates, 2015 tests.
    """
    rows = _rows(folder, "seattle-weather.csv")
    columns = ("precipitation", "temp_max", "temp_min", "wind")
    series = np.array([[row[column] for column in columns] for row in rows], np.float32)
    years = np.array([int(row["date"][:4]) for row in rows])
    return Split(series[years < 2014], series[years == 2014], series[years == 2015])


def read_temperatures(folder: Path) -> Split[Array]:
    """Read temperatures of San Francisco through one year, hour by hour: float32 (T, 1), in °F.

    They move too smoothly for one year's weather: an hour differs by 0.1 °F from that of the day before, which is how
    averages over many years look. The first eight tenths of the year train, the next validates, the last tests.
    """
    series = np.array([[row["temp"]] for row in _rows(folder, "sf-temps.csv")], np.float32)
    return Split(*np.split(series, [len(series) * 8 // 10, len(series) * 9 // 10]))


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    """Read a table with a line of column names."""
    (file,) = folder.rglob(name)
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
