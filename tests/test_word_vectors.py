"""Word vectors from text files: GloVe's and word2vec's form, words that are missing, and files that are broken."""

import gzip

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import data, nn
from tinyrnn.errors import DataError

GLOVE = "the 0.1 -0.2 3e-1\ncat 1 2 3\nthe 9 9 9\n. . . 4 5 6\nkäse 7 8 9\n"
WORDS = ["cat", "dog", "the", "käse"]


@pytest.fixture
def written(tmp_path):
    """Return what writes a file and gives its path."""

    def write(text):
        path = tmp_path / "vectors.txt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.mark.parametrize("text", [
    GLOVE, "5 3\n" + GLOVE, GLOVE.replace("\n", " \n"), GLOVE.replace("\n", "\r\n"), GLOVE[:-1], GLOVE + "\n",
], ids=["glove", "word2vec", "a space at the end", "Windows", "no newline", "an empty line"])  # fmt: skip
def test_vectors_come_to_their_words(backend, written, text):
    embedding, missing = nn.Embedding.from_text(written(text), WORDS)
    assert missing == ("dog",)
    expected = [[1, 2, 3], [0, 0, 0], [0.1, -0.2, 0.3], [7, 8, 9]]  # of two vectors for "the", the first
    np.testing.assert_allclose(embedding.W.numpy(), np.array(expected, "float32"))
    np.testing.assert_allclose(embedding([[2], [0]]).numpy(), np.array([[expected[2]], [expected[0]]], "float32"))


def test_it_is_an_embedding_like_any_other(written):
    embedding, missing = nn.Embedding.from_text(written(GLOVE), ["dog", "cat"], dtype="float64")
    assert repr(embedding) == "Embedding(V=2 -> E=3): 6 parameters\n  W (V=2, E=3)"
    assert missing == ("dog",)
    assert embedding.W.dtype == tr.float64
    embedding([0, 0, 1]).sum().backward()
    assert embedding.W.grad.tolist() == [[2] * 3, [1] * 3]


def test_words_may_come_from_a_vocabulary(written):
    embedding, missing = nn.Embedding.from_text(written("a 1 2\nc 3 4\n"), data.Vocabulary("abc"))
    assert embedding.W.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert missing == ("b",)


def test_words_may_have_spaces(written):
    embedding, missing = nn.Embedding.from_text(written(GLOVE), [". . .", "the"])
    assert embedding.W[0].tolist() == [4, 5, 6]
    assert not missing


BROKEN = {
    "a 1 2\nb 3\n": "vectors.txt, line 2: 1 numbers behind 'b'; expected 2, as before, with spaces between",
    "a 1 2\nb 3 4 5\n": "vectors.txt, line 2: 3 numbers behind 'b'; expected 2, as before, with spaces between",
    "9 2\na 1 2\nb 3\n": "vectors.txt, line 3: 1 numbers behind 'b'; expected 2",
    "9 3\na 1 2\n": "vectors.txt, line 2: 2 numbers behind 'a'; expected 3, as before",
    "a\nb 1\n": "vectors.txt, line 1: 0 numbers behind 'a'; expected a word and then numbers",
    "a\t1\t2\n": "vectors.txt, line 1: 0 numbers behind 'a\\t1\\t2'; expected a word and then numbers",
    "a 1 x\n": "vectors.txt, line 1: 'x' stands among the numbers; expected finite ones, with spaces between",
    "a 1 2\nb 1 nan\n": "vectors.txt, line 2: 'nan' stands among the numbers; expected finite ones",
    "a 1 2\nb 1 inf\n": "vectors.txt, line 2: 'inf' stands among the numbers; expected finite ones",
    "c 1 2\nd 1 2\n": "vectors.txt: none of the 2 words is in it; expected words such as 'a', 'b'",
    "": "vectors.txt: none of the 2 words is in it",
    b"a 1 2\n\xff\xfe 1 2\n": "vectors.txt, line 2: not UTF-8 (invalid start byte at byte 0); save the file as UTF-8",
    gzip.compress(b"a 1 2\n", mtime=0): "vectors.txt, line 1: not UTF-8",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_told_with_its_line(written, text):
    with pytest.raises(DataError) as caught:
        nn.Embedding.from_text(written(text), ["a", "b"])
    assert BROKEN[text] in str(caught.value)


@pytest.mark.parametrize(("words", "message"), [
    ([], "Embedding.from_text: the vocabulary has 0 words, 0 of them different; expected each once, and at least one"),
    (["a", "b", "a"], "the vocabulary has 3 words, 2 of them different; expected each once"),
])  # fmt: skip
def test_an_ambiguous_vocabulary_is_refused(written, words, message):
    with pytest.raises(DataError, match=message):
        nn.Embedding.from_text(written("a 1 2\n"), words)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt: cannot be read: No such file or directory"):
        nn.Embedding.from_text(tmp_path / "nowhere.txt", ["a"])
