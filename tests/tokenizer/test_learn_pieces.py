import itertools
import random
from collections import Counter

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend_files import extend_tokenizer
from megatron_biollm.tokenizer.learn_pieces import ChunkCounter, PieceRules, learn_pieces
from megatron_biollm.tokenizer.mergeable import open_vocabulary

RULES = PieceRules(min_frequency=2)


@pytest.fixture(params=["sentencepiece", "tokenizers"])
def vocabulary(request, sentencepiece_file, hf_folder):
    path = sentencepiece_file if request.param == "sentencepiece" else hf_folder
    return open_vocabulary(path)


@pytest.fixture
def new_words():
    """Texts with words that the base has not seen."""
    dice = random.Random(2)
    parts = ["zymo", "vax", "ibo", "quin", "lux", "mab", "tinib", "prazole", "-like", "β-", "≥"]
    words = ["".join(dice.choices(parts, k=3)) for _ in range(60)]
    return [" ".join(dice.choices(words, k=40)) + f" {n}mg.\n(the {n})" for n in range(40)]


def count(vocabulary, texts):
    counter = ChunkCounter()
    for text in texts:
        counter.add(text)
    return counter.runs(vocabulary)


def learn(vocabulary, texts, number, rules=RULES):
    pieces = learn_pieces(vocabulary, count(vocabulary, texts), number, rules)
    return [piece.piece for piece in pieces]


def test_the_first_piece_is_the_most_frequent_pair(vocabulary, new_words):
    texts = [text.replace("≥", "").replace("β", "b") for text in new_words]
    pairs: Counter[str] = Counter()
    for run, number in count(vocabulary, texts).items():
        for a, b in itertools.pairwise(run):
            pairs[a + b] += number
    pieces = learn_pieces(vocabulary, count(vocabulary, texts), 1, RULES)
    assert pieces[0].frequency == max(pairs.values()) == pairs[pieces[0].piece]


def test_each_piece_saves_what_was_counted(vocabulary, new_words, tmp_path):
    """The counts kept while learning are those of the finished tokenizers."""
    texts = [" ".join(new_words)]
    pieces = learn_pieces(vocabulary, count(vocabulary, texts), 40, RULES)
    lengths = [len(vocabulary.tokenizer.encode(texts[0]))]
    for n in range(1, 41):
        extend_tokenizer(vocabulary, [p.piece for p in pieces[:n]], tmp_path / str(n))
        lengths.append(len(open_vocabulary(tmp_path / str(n)).tokenizer.encode(texts[0])))
    saved = [a - b for a, b in itertools.pairwise(lengths)]
    assert saved == [piece.frequency for piece in pieces]


def test_the_order_of_the_texts_changes_nothing(vocabulary, new_words):
    assert learn(vocabulary, new_words, 30) == learn(vocabulary, new_words[::-1], 30)


def test_every_piece_alone_is_one_token_and_no_text_gets_longer(
    vocabulary, new_words, texts, difficult_texts, tmp_path
):
    pieces = learn(vocabulary, new_words, 60)
    extend_tokenizer(vocabulary, pieces, tmp_path / "more")
    more = open_vocabulary(tmp_path / "more")
    for i, piece in enumerate(pieces):
        if piece.startswith("▁"):
            assert more.tokenizer.encode(piece[1:]) == [600 + i]
    for text in [*new_words, *texts, *difficult_texts]:
        ids = more.tokenizer.encode(text)
        assert len(ids) <= len(vocabulary.tokenizer.encode(text))
        assert more.tokenizer.decode(ids) == text


def test_a_frequent_character_that_took_three_bytes_becomes_a_piece(vocabulary):
    assert "東" not in vocabulary.pieces
    assert learn(vocabulary, ["a 東京 b"] * 9, 2) == ["京", "東"]


def test_no_piece_has_white_space_or_digits_beside_letters(vocabulary, new_words):
    pieces = learn(vocabulary, [text.replace("mg", "0x") for text in new_words], 60)
    for text in map(vocabulary.text, pieces):
        assert " " not in text[1:] and "\n" not in text and not any(map(str.isdigit, text))


@pytest.mark.parametrize(
    ("text", "words", "punctuation"),
    [
        (" patients", True, True),
        ("-induced", True, True),
        (" patients.", False, True),
        ("(p", True, True),
        (" mg/kg", True, True),
        ("p)", False, True),
        ("%),", True, True),
        (" β-", True, True),
        ("e\u0301t", True, True),
        (" ", False, False),
        ("a b", False, False),
        ("a\n", False, False),
        ("IL6", False, False),
        (" sixteen-letters-", False, False),
    ],
)
def test_what_may_be_a_piece(text, words, punctuation):
    assert PieceRules().allow(text, digits=False) == words
    assert PieceRules(join_punctuation=True).allow(text, digits=False) == punctuation


def test_digits_may_stand_in_pieces_where_the_base_has_such():
    assert PieceRules(join_punctuation=True).allow("IL6", digits=True)


def test_fewer_pieces_than_asked_for_are_refused_with_their_number(vocabulary):
    with pytest.raises(UserError, match=r"holds \d+ new pieces.*exactly 2000 are to be added"):
        learn(vocabulary, ["zymogenic zymogenic"], 2000)
    with pytest.raises(UserError, match="holds 0 new pieces"):
        learn(vocabulary, ["zymogenic zymogenic"], 1, PieceRules())
    with pytest.raises(UserError, match="holds 0 new pieces"):
        learn(vocabulary, [], 1)


def test_rules_that_allow_nothing_are_refused():
    with pytest.raises(UserError, match="at most 1 characters"):
        PieceRules(max_length=1)
    with pytest.raises(UserError, match="save 0 tokens"):
        PieceRules(min_frequency=0)


def test_sequences_of_bases_and_lines_of_dots_are_no_words(vocabulary):
    assert not count(vocabulary, ["ACGT" * 100 + " " + "." * 2000 + " " + "=" * 90])


def test_a_word_after_a_line_end_begins_with_no_space(vocabulary):
    assert learn(vocabulary, ["a\nqxqx b"] * 9, 1)[0] == "qx"
