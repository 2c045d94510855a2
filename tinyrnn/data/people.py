"""Names and their nationality; generated sentences in which persons, places and companies are to be found."""

from __future__ import annotations

import ast
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from tinyrnn.data.splits import Split, split_by_key

NATIONALITIES = {
    "Croatian": "hr_HR",
    "Czech": "cs_CZ",
    "Danish": "da_DK",
    "Dutch": "nl_NL",
    "English": "en_GB",
    "Finnish": "fi_FI",
    "French": "fr_FR",
    "German": "de_DE",
    "Hungarian": "hu_HU",
    "Icelandic": "is_IS",
    "Irish": "en_IE",
    "Italian": "it_IT",
    "Polish": "pl_PL",
    "Portuguese": "pt_PT",
    "Romanian": "ro_RO",
    "Spanish": "es_ES",
    "Swedish": "sv_SE",
    "Turkish": "tr_TR",
}
SENTENCES = (4000, 500, 500)
PLACES = {"en": "countries", "en_US": "states", "de_DE": "cities", "pl_PL": "cities", "pt_PT": "cities"}
LABELS = {"PERSON": "PER", "PLACE": "LOC", "COMPANY": "ORG"}
TEMPLATES = """\
PERSON was born in PLACE .
PERSON has moved from PLACE to PLACE .
PERSON works for COMPANY .
PERSON and PERSON met in PLACE last summer .
Last week PERSON left COMPANY .
COMPANY has its office in PLACE .
COMPANY will open a second shop in PLACE .
COMPANY , which PERSON founded , was sold to COMPANY .
In PLACE it rained all day .
The train from PLACE to PLACE is late .
Nobody in PLACE had heard of PERSON .
Nobody had heard of COMPANY .
We wrote to COMPANY about it .
We wrote to PERSON about it .
I like PLACE .
I like PERSON .
I like COMPANY .
PERSON , PERSON and PERSON went home .
PLACE and PLACE are far apart .
Have you ever been to PLACE ?
Have you ever met PERSON ?
Do you buy from COMPANY ?
" I never said that , " said PERSON .
The wine is from PLACE .
The letter is from PERSON .
The bill is from COMPANY .
PERSON , a teacher from PLACE , won the prize .
PERSON became head of COMPANY in May .
COMPANY and COMPANY have the same owner .
The owner of COMPANY is PERSON .
The weather in PLACE was good .
For years PERSON lived near PLACE .
COMPANY pays PERSON well .
PERSON went from COMPANY to COMPANY .
It was PERSON who called .
It was COMPANY that paid .
It was in PLACE that they met .
COMPANY makes boats in PLACE .
After the war PERSON returned to PLACE .
Who is PERSON ?
Where is PLACE ?
What does COMPANY sell ?
Ask PERSON or ask COMPANY .
The road to PLACE is closed .
The lawyer of PERSON wrote to COMPANY .
PERSON sold the house in PLACE to PERSON .
Without COMPANY there would be no work in PLACE .
The children of PERSON live in PLACE and in PLACE .
From today PERSON speaks for COMPANY .
A spokesman of COMPANY in PLACE said nothing about PERSON .
"""


def read_names(folder: Path) -> Split[list[tuple[str, str]]]:
    """Read first names and surnames: pairs of a name and one of 18 nationalities, ("Szymański", "Polish").

    A name that several nations have is there once for each, always in the same part.
    """
    pairs = [
        (name, nationality)
        for nationality, locale in NATIONALITIES.items()
        for name in sorted(_listed(folder, "person", locale, ".*(first|last)_names.*"))
        if re.fullmatch(r"[^\W\d_]+([ '.-]+[^\W\d_]+)*\.?", name)
    ]
    return split_by_key(pairs, key=lambda pair: pair[0])


def read_entities(folder: Path) -> Split[list[tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Generate English sentences: pairs of their words and, for each, "O" or the kind of name that it is of.

        Mary   Smith  left  Baker  Group  in  New    York   .
        B-PER  I-PER  O     B-ORG  I-ORG  O   B-LOC  I-LOC  O

    B begins the name of a person, place or company, and I goes on with it. Nobody wrote these sentences: 5,000 times,
    a template is filled with names from lists, and the same ones every time. The three parts share no template, no
    first name, no surname (nor company, which bears one) and no place.
    """
    first_names = _listed(folder, "person", "en_US", "first_names.*")
    last_names = _listed(folder, "person", "en_US", "last_names.*")
    places = {place for locale, names in PLACES.items() for place in _listed(folder, "address", locale, names)}
    places = {place.partition(" (")[0] for place in places}
    suffixes = sorted(_listed(folder, "company", ".", "company_suffixes"))
    # With this seed, persons, places and companies are about equally frequent in the templates of each part.
    templates = split_by_key(TEMPLATES.splitlines(), key=str, fractions=(0.6, 0.2, 0.2), seed=5)
    names = [split_by_key(sorted(strings), key=str) for strings in (first_names, last_names, places)]
    chance = random.Random(0)
    parts = []
    for count, part, first, last, place in zip(SENTENCES, templates, *names, strict=True):
        slots = {"PERSON": (first, last), "PLACE": (place,), "COMPANY": (last, suffixes)}
        parts.append([_filled(chance.choice(part), slots, chance) for _ in range(count)])
    return Split(*parts)


def _filled(
    template: str, slots: dict[str, tuple[list[str], ...]], chance: random.Random
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fill a template with names by chance, and label its words."""
    words: list[str] = []
    labels: list[str] = []
    for word in template.split():
        if word not in slots:
            words.append(word)
            labels.append("O")
            continue
        filled = " ".join(chance.choice(strings) for strings in slots[word]).split()
        words += filled
        labels += ["B-" + LABELS[word]] + ["I-" + LABELS[word]] * (len(filled) - 1)
    return tuple(words), tuple(labels)


def _listed(folder: Path, provider: str, locale: str, names: str) -> set[str]:
    """Return the strings in the lists of a locale that are named so, read from the source code, which is not run."""
    (file,) = folder.rglob(f"providers/{provider}/{locale}/__init__.py")
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and re.fullmatch(names, target.id):
                found |= {unicodedata.normalize("NFC", string) for string in _strings(node.value)}
    return found


def _strings(node: ast.AST) -> Iterator[str]:
    """Yield the strings in a list, or in pairs of a string and how frequent it is."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
