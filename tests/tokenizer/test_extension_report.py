import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.extend_files import extend_tokenizer
from megatron_biollm.tokenizer.extension_report import ExtensionReport, HeldOut, format_report
from megatron_biollm.tokenizer.mergeable import open_vocabulary

LONGER_WORDS = "base words made longer"


@pytest.fixture(params=["sentencepiece", "tokenizers"])
def extended(request, sentencepiece_file, hf_folder, tmp_path):
    """Base, extension and folder of a tokenizer that knows "zymogenic"."""
    path = sentencepiece_file if request.param == "sentencepiece" else hf_folder
    base = open_vocabulary(path)
    names = base.tokenizer.pieces()
    parts = [names[i] for i in base.tokenizer.encode("zymogenic")]
    new = ["".join(parts[:n]) for n in range(2, len(parts) + 1)]
    return base, extend_tokenizer(base, new, tmp_path / "more"), tmp_path / "more"


def test_tokens_are_counted_per_source(extended):
    base, extension, folder = extended
    report = ExtensionReport(base, extension, folder)
    parts = len(base.tokenizer.encode("zymogenic"))
    report.measure([("pubmed", "zymogenic"), ("pubmed", "zymogenic zymogenic"), ("pmc", "the")])
    pmc, pubmed, total = report.to_dict()["held_out"]
    assert (pubmed["documents"], pubmed["words"]) == (2, 3)
    assert (pubmed["tokens_before"], pubmed["tokens_after"]) == (3 * parts, 3)
    assert pubmed["tokens_per_word_after"] == 1.0 and pmc["percent_saved"] == 0
    assert (total["source"], total["tokens_after"]) == ("all", 4)


def test_pieces_are_ordered_by_the_tokens_they_save(extended):
    base, extension, folder = extended
    report = ExtensionReport(base, extension, folder)
    report.measure([("pubmed", "zymogenic cell")])
    first = report.pieces()[0]
    assert first["piece"] == "▁zymogenic" and first["held_out_uses"] == 1
    assert "".join(first["before"]) == "▁zymogenic"
    assert first["tokens_saved"] == len(first["before"]) - 1


def test_a_good_extension_breaks_no_promise(extended, texts, difficult_texts):
    report = ExtensionReport(*extended)
    report.measure(("pubmed", text) for text in [*texts, *difficult_texts, "<s> </s>"])
    result = report.to_dict()
    assert set(result["checks"].values()) == {0}
    assert result["texts_compared"] == 2 * (len(texts) + len(difficult_texts) + 1)
    assert json.loads(json.dumps(result)) == result
    assert "zymo" in format_report(result) and "saved" in format_report(result)


def test_a_form_with_other_ids_is_counted(extended):
    base, extension, folder = extended
    state = json.loads((folder / "tokenizer.json").read_text())
    report = ExtensionReport(base, extension, folder)
    state["model"]["merges"] = state["model"]["merges"][:100]
    (folder / "tokenizer.json").write_text(json.dumps(state))
    broken = ExtensionReport(base, extension, folder)
    broken.measure([("pubmed", "zymogenic hepatitis")])
    report.measure([("pubmed", "zymogenic hepatitis")])
    assert any(broken.checks().values()) and not any(report.checks().values())


def test_a_score_above_the_bases_is_seen_to_tear_words(sentencepiece_file, texts, tmp_path):
    """The recipe in common use: score 0 for new pieces."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    base = open_vocabulary(sentencepiece_file)
    words = [p for p in base.pieces if p[0] == "▁" and p[1:].isalpha() and len(p) > 7]
    pairs = {word[i : i + 2] for word in words for i in range(1, len(word) - 1)}
    new = sorted(pairs - base.pieces.keys())
    extension = extend_tokenizer(base, new, tmp_path / "more")
    assert ExtensionReport(base, extension, tmp_path / "more").checks()[LONGER_WORDS] == 0
    model = tmp_path / "more" / "tokenizer.model"
    proto = ModelProto.FromString(model.read_bytes())
    for piece in proto.pieces[-len(new) :]:
        piece.score = 0
    model.write_bytes(proto.SerializeToString())
    assert ExtensionReport(base, extension, tmp_path / "more").checks()[LONGER_WORDS] > 0


def test_what_is_held_out_depends_on_the_text_alone():
    texts = [f"document {n}" for n in range(2000)]
    one, other = HeldOut(0.1), HeldOut(0.1)
    chosen = {text for text in texts if one.takes("pubmed", text)}
    assert chosen == {text for text in reversed(texts) if other.takes("pmc", text)}
    assert 140 < len(chosen) < 260 and len(one.documents) == len(chosen)
    assert not any(HeldOut(0.0).takes("pubmed", text) for text in texts)


def test_more_than_the_limit_is_held_out_but_not_kept():
    held_out = HeldOut(0.999999, limit_bytes=25)
    assert all(held_out.takes("pubmed", f"document {n}") for n in range(9))
    assert (len(held_out.documents), held_out.left_out) == (2, 7)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2])
def test_a_fraction_that_leaves_nothing_to_learn_is_refused(fraction):
    with pytest.raises(UserError, match="cannot be held out"):
        HeldOut(fraction)
