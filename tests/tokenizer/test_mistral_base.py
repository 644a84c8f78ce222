"""The 32,000-piece model of `mistral-common` (Apache-2.0), in LLaMA-2's style."""

import importlib.util
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.tokenizer.extend_files import extend_tokenizer
from megatron_biollm.tokenizer.extension_report import ExtensionReport, HeldOut
from megatron_biollm.tokenizer.learn_pieces import ChunkCounter, PieceRules, learn_pieces
from megatron_biollm.tokenizer.mergeable import open_vocabulary
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer

PUBMED = Path(__file__).parents[2].parent / "shared" / "data" / "corpus" / "pubmed"
PACKAGE = importlib.util.find_spec("mistral_common")

pytestmark = pytest.mark.skipif(PACKAGE is None, reason="mistral-common is not installed")


@pytest.fixture(scope="module")
def base():
    folder = Path(PACKAGE.submodule_search_locations[0]) / "data"
    return open_vocabulary(folder / "tokenizer.model.v1")


def learn(base, documents, number, held_out):
    counter = ChunkCounter()
    for source, text in documents:
        if not held_out.takes(source, text):
            counter.add(text)
    pieces = learn_pieces(base, counter.runs(base), number, PieceRules(min_frequency=2))
    return [piece.piece for piece in pieces]


def random_texts(words, number):
    """Words, runs of spaces, control characters, control tokens, any Unicode."""
    dice = random.Random(4)
    signs = [" ", "  ", "   ", "\n", "\t", "\r\n", "\0", "\u00a0", "\u2009", "▁", "<s>", "</s>"]
    signs += ["<unk>", "<0x41>", ".", ",", "(", "-", "7", "12", "e\u0301", "ﬁ", "東", "\U0001f9ec"]

    def any_character():
        code = dice.choice([dice.randrange(128), dice.randrange(0x3000), dice.randrange(0x110000)])
        return chr(code) if not 0xD800 <= code < 0xE000 else "x"

    makers = [lambda: dice.choice(words), lambda: dice.choice(signs), any_character]
    return [
        "".join(dice.choice(makers)() for _ in range(dice.randrange(40))) for _ in range(number)
    ]


def test_ids_are_the_same_in_every_form_for_any_text(base, texts, tmp_path):
    new = learn(base, [("made", text) for text in texts], 150, HeldOut(0.0))
    extension = extend_tokenizer(base, new, tmp_path / "more")
    model = build_tokenizer(TokenizerConfig("Llama2Tokenizer", str(tmp_path / "more")))
    form = build_tokenizer(TokenizerConfig("HuggingFaceTokenizer", str(tmp_path / "more")))
    backend = Backend.from_file(str(tmp_path / "more" / "tokenizer.json"))
    words = [word for text in texts[:20] for word in text.split()]
    for text in random_texts(words, 3000):
        ids = model.encode(text)
        assert form.encode(text) == backend.encode(text).ids == ids
        assert len(ids) <= len(base.tokenizer.encode(text))
        assert model.decode(ids) == base.tokenizer.decode(base.tokenizer.encode(text))
    assert extension.base_vocab_size == 32000 and model.vocab_size == 32150


def test_scores_follow_the_last_normal_one_and_not_that_of_spaces(base, texts, tmp_path):
    new = learn(base, [("made", text) for text in texts], 3, HeldOut(0.0))
    extend_tokenizer(base, new, tmp_path / "more")
    more = open_vocabulary(tmp_path / "more")
    assert [p.score for p in more.proto.pieces[-3:]] == [-31741.0, -31742.0, -31743.0]


@pytest.mark.skipif(not PUBMED.is_dir(), reason="no real PubMed files beside the checkout")
def test_real_abstracts_that_were_not_learnt_from_get_shorter(base, tmp_path):
    file = PUBMED / "asreview_Cohen2006_ProtonPumpInhibitors.csv.gz"
    documents = [("pubmed", d.text) for d in read_corpus([file], CorpusReport())]
    held_out = HeldOut(0.2)
    new = learn(base, documents, 500, held_out)
    report = ExtensionReport(
        base, extend_tokenizer(base, new, tmp_path / "more"), tmp_path / "more"
    )
    report.measure(held_out.documents)
    result = report.to_dict()
    assert set(result["checks"].values()) == {0}
    assert result["held_out"][-1]["percent_saved"] > 12
