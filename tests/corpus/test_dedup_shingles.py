"""Word and n-gram hashes: what counts as the same, whatever the texts come together with."""

import numpy as np
import pytest

from megatron_biollm.corpus.dedup.shingles import BLOCK_BYTES, hash_words, shingle
from tests.corpus.made_texts import Author


def words_of(text):
    return hash_words([text]).hashes.tolist()


def shingles_of(text, length=3):
    return shingle(hash_words([text]), length)[0].tolist()


@pytest.mark.parametrize(
    "other",
    [
        "METHODS: The (α-helix) dose, 5 mg!",
        "methods\n\nthe\talpha"[:13] + " α-HELIX dose\u00a05\u2009mg",
        "Methods… the “α–helix” dose−5 mg",
    ],
)
def test_case_spacing_and_punctuation_do_not_count(other):
    assert words_of("methods the α helix dose 5 mg") == words_of(other)


def test_different_words_have_different_hashes():
    words = sorted(set(Author(1, vocabulary=20000).words)) + [str(n) for n in range(20000)]
    assert len(set(words_of(" ".join(words)))) == len(words)


def test_a_letter_outside_ascii_belongs_to_its_word():
    assert len(words_of("β-catenin naïve Müller µg")) == 5
    assert words_of("ΜG") == words_of("µg")  # the Greek capital and the micro sign


def test_every_chinese_character_is_a_word():
    assert len(words_of("高血压。糖尿病")) == 6


def test_words_have_the_same_hashes_in_any_company():
    texts = [Author(2).text(300), "", "β " * 50, "one", Author(3).text(BLOCK_BYTES // 3), "!?"]
    together = hash_words(texts)
    for text, start, end in zip(texts, together.offsets, together.offsets[1:], strict=False):
        assert together.hashes[start:end].tolist() == words_of(text)


def test_a_word_longer_than_a_block_does_not_lose_the_rest():
    words = words_of("a" * (3 * BLOCK_BYTES) + " end of text")
    assert words[-3:] == words_of("end of text")


def test_starts_point_at_the_words():
    words = hash_words(["One, two", "", "β three"])
    data = b"One, two\n\n\xce\xb2 three"
    assert [data[start:].split(b",")[0].split()[0] for start in words.starts] == [
        b"One", b"two", b"\xce\xb2", b"three"
    ]  # fmt: skip


def test_shingles_agree_where_runs_of_words_agree():
    first, second = list("abcdefg"), list("xbcdeyfg")
    runs = [{tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (first, second)]
    hashes = [set(shingles_of(" ".join(words))) for words in (first, second)]
    assert len(hashes[0] & hashes[1]) == len(runs[0] & runs[1]) == 2
    assert [len(h) for h in hashes] == [len(r) for r in runs]


def test_no_shingle_reaches_into_the_next_text():
    hashes, offsets = shingle(hash_words(["a b c d", "e f", "", "g h i"]), 3)
    assert np.diff(offsets).tolist() == [2, 1, 1, 1]
    assert hashes.tolist() == [
        *shingles_of("a b c d"), *shingles_of("e f"), 0, *shingles_of("g h i")
    ]  # fmt: skip


def test_a_text_shorter_than_a_shingle_is_one_shingle_of_all_its_words():
    assert shingles_of("e f", 5) == shingles_of("E, f!", 5) != shingles_of("e g", 5)
