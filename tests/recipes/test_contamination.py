"""Items of benchmarks are found in the training data, however it is written, and only where they
are."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.indexed import IndexedWriter
from megatron_biollm.evaluation.contamination import read_findings
from megatron_biollm.evaluation.items import ChoiceItem, SpanItem
from megatron_biollm.evaluation.suite import all_benchmarks
from megatron_biollm.recipes import contamination_scan
from megatron_biollm.recipes.contamination import Search, search
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from tests.evaluation.scored import benchmark
from tests.evaluation.shared_benchmarks import DATA, needs_data, real_items
from tests.generation.small_model import train_small_tokenizer

SENTENCES = (
    "The receptor binds a small peptide and then activates two kinases in human T cells.",
    "Loss of the tumour suppressor was seen in nine of forty samples from older patients.",
    "Aspirin lowers the risk of a second stroke, but it raises that of bleeding in the gut.",
    "Neither gene was expressed in the liver of mice that had been fed a diet without fat.",
)
FILLER = "Nothing here has been written about any question that somebody could have asked before."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> TokenizerConfig:
    folder = train_small_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return TokenizerConfig(tokenizer_model=str(folder))


def asking(texts=SENTENCES, name="made_up"):
    items = [SpanItem(f"s{n}", f"d{n}", text, ()) for n, text in enumerate(texts)]
    return replace(benchmark(name, name, "ner"), read=lambda source, conventions: items)


def write_lines(path: Path, texts) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def write_indexed(prefix: Path, texts, tokenizer: TokenizerConfig) -> str:
    model = build_tokenizer(tokenizer)
    ids = [[*model.encode(text), model.eod] for text in texts]
    lengths = np.array([len(one) for one in ids])
    with IndexedWriter(str(prefix), np.uint16) as writer:
        writer.add_documents(np.concatenate(ids), lengths, np.ones(len(ids), int))
        writer.finish()
        writer.commit()
    return str(prefix)


def found(tmp_path, benchmark=None, **more) -> dict[str, dict]:
    output = tmp_path / "contamination.json"
    findings = search(Search([benchmark or asking()], tmp_path, output, **more))
    assert read_findings(output) == findings
    (one,) = findings.benchmarks.values()
    return {row["id"]: row for row in one["found"]}


def test_items_are_found_whatever_case_spacing_and_punctuation_they_have(tmp_path):
    text = f"{FILLER} {SENTENCES[0].upper().replace(' ', chr(10))} {FILLER}"
    tokens = SENTENCES[2].replace(",", " , ").replace("gut.", "gut .")
    path = write_lines(tmp_path / "a.jsonl", [FILLER, text, tokens])
    rows = found(tmp_path, jsonl=[path])
    assert set(rows) == {"s0", "s2"}
    assert rows["s0"] == {
        "id": "s0", "share": 1.0, "in_one_document": 1.0, "file": path, "document": 1
    }  # fmt: skip
    assert rows["s2"]["document"] == 2


def test_the_same_words_in_another_order_are_not_found(tmp_path):
    words = " ".join(SENTENCES).split()
    random.Random(0).shuffle(words)
    assert found(tmp_path, jsonl=[write_lines(tmp_path / "a.jsonl", [" ".join(words)])]) == {}


def test_a_part_of_an_item_is_told_as_its_share(tmp_path):
    words = SENTENCES[1].split()
    path = write_lines(tmp_path / "a.jsonl", [" ".join(words[:11]), " ".join(words[4:])])
    row = found(tmp_path, jsonl=[path])["s1"]
    grams = len(words) - 7
    assert row["share"] == 1.0
    assert row["in_one_document"] == pytest.approx(4 / grams, abs=1e-4)
    assert row["document"] == 0


def test_an_item_that_begins_in_one_document_and_ends_in_another_is_not_found(tmp_path):
    words = SENTENCES[1].split()
    path = write_lines(tmp_path / "a.jsonl", [" ".join(words[:7]), " ".join(words[7:])])
    row = found(tmp_path, jsonl=[path])["s1"]
    assert row["share"] == pytest.approx(1 / (len(words) - 7), abs=1e-4)


def test_indexed_corpora_and_their_texts_give_the_same(tmp_path, tokenizer):
    texts = [FILLER, SENTENCES[3], f"{FILLER} {SENTENCES[0]}"]
    prefix = write_indexed(tmp_path / "corpus", texts, tokenizer)
    ours = found(tmp_path, prefixes=[prefix], tokenizer=tokenizer)
    theirs = found(tmp_path, jsonl=[write_lines(tmp_path / "a.jsonl", texts)])
    assert [replaced(row) for row in ours.values()] == [replaced(row) for row in theirs.values()]
    assert set(ours) == {"s0", "s3"} and ours["s0"]["document"] == 2


def replaced(row: dict) -> dict:
    return row | {"file": ""}


def test_documents_are_numbered_in_their_files_however_these_are_cut(
    tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(contamination_scan, "UNIT_TOKENS", 40)
    texts = [FILLER, SENTENCES[3], FILLER, FILLER, SENTENCES[0]]
    prefixes = [write_indexed(tmp_path / name, texts, tokenizer) for name in ("one", "two")]
    lines = write_lines(tmp_path / "b.jsonl", [FILLER, SENTENCES[1]])
    rows = found(tmp_path, prefixes=prefixes, jsonl=[lines], tokenizer=tokenizer)
    assert (rows["s0"]["file"], rows["s0"]["document"]) == (prefixes[0], 4)
    assert (rows["s1"]["file"], rows["s1"]["document"]) == (lines, 1)


def test_several_workers_find_the_same(tmp_path):
    paths = [write_lines(tmp_path / f"{n}.jsonl", [FILLER, one]) for n, one in enumerate(SENTENCES)]
    alone = found(tmp_path, jsonl=paths)
    assert found(tmp_path, jsonl=[str(tmp_path / "*.jsonl")], workers=2) == alone
    assert len(alone) == 4


def test_a_search_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    first = write_lines(tmp_path / "a.jsonl", [SENTENCES[0]])
    second = tmp_path / "b.jsonl"
    second.write_text("{torn")
    with pytest.raises(UserError, match=r"b.jsonl: in line 1 after byte 0, it is not JSON"):
        found(tmp_path, jsonl=[first, str(second)])
    assert not (tmp_path / "contamination.json").exists()
    write_lines(second, [SENTENCES[1]])
    read = []
    scan = contamination_scan.Scanner._read
    monkeypatch.setattr(
        contamination_scan.Scanner, "_read", lambda *a: read.append(a[1].name) or scan(*a)
    )
    assert set(found(tmp_path, jsonl=[first, str(second)])) == {"s0", "s1"}
    assert read == [str(second)]
    assert not (tmp_path / "contamination.json.scan").exists()


def test_masked_mentions_do_not_hide_an_item(tmp_path):
    masked = SENTENCES[2].replace("Aspirin", "@CHEMICAL$").replace("bleeding", "@DISEASE$")
    items = [ChoiceItem("r0", "d", masked, ("false", "CPR:3"), 0)]
    one = replace(benchmark("relations", "", "re"), read=lambda source, conventions: items)
    path = write_lines(tmp_path / "a.jsonl", [SENTENCES[2]])
    assert found(tmp_path, one, jsonl=[path])["r0"]["share"] == 1.0


def test_a_short_question_is_looked_for_with_its_own_choices(tmp_path):
    shared = "Which of these is true?"
    items = [
        ChoiceItem("q0", "d", shared, ("It beats twice a day", "It has three chambers"), 0),
        ChoiceItem("q1", "e", shared, ("It never sleeps", "It has no nerves at all"), 0),
    ]
    one = replace(benchmark("quiz", "", "qa"), read=lambda source, conventions: items)
    text = f"{shared} a) It beats twice a day b) It has three chambers"
    rows = found(tmp_path, one, jsonl=[write_lines(tmp_path / "a.jsonl", [text, shared])])
    assert "q1" not in rows
    rows = found(
        tmp_path,
        one,
        jsonl=[write_lines(tmp_path / "b.jsonl", [text.replace("a) ", "").replace("b) ", "")])],
    )
    assert rows["q0"]["share"] == 1.0


def test_items_of_a_few_words_are_counted_and_not_looked_for(tmp_path):
    output = tmp_path / "contamination.json"
    wanted = asking(("Materials and methods", "Nine of forty samples were lost"))
    path = write_lines(
        tmp_path / "a.jsonl", ["Materials and methods. Nine of forty samples, were lost!"]
    )
    findings = search(Search([wanted], tmp_path, output, jsonl=[path]))
    assert findings.summary() == [
        {"benchmark": "made_up", "split": "test", "items": 2, "too_short": 1, "found": 1}
    ]


def test_bad_input_is_refused(tmp_path, tokenizer):
    output = tmp_path / "out.json"
    with pytest.raises(UserError, match="give --data-prefix or --jsonl"):
        Search([asking()], tmp_path, output)
    with pytest.raises(UserError, match="give --tokenizer-model"):
        Search([asking()], tmp_path, output, prefixes=["a"])
    with pytest.raises(UserError, match="--ngram 3"):
        Search([asking()], tmp_path, output, jsonl=["a"], ngram=3)
    with pytest.raises(UserError, match="does not exist"):
        found(tmp_path, prefixes=[str(tmp_path / "none")], tokenizer=tokenizer)
    path = write_lines(tmp_path / "a.jsonl", [FILLER])
    with pytest.raises(UserError, match="it has no 'body'"):
        found(tmp_path, jsonl=[path], key="body")


@needs_data
def test_the_development_sentences_of_jnlpba_are_in_its_training_text(tmp_path):
    jnlpba = all_benchmarks()["jnlpba"]
    abstracts: dict[str, list[str]] = {}
    for item in real_items(jnlpba, "train"):
        abstracts.setdefault(item.document, []).append(item.text)
    texts = [" ".join(sentences) for sentences in abstracts.values()]
    shuffled = []
    for number, text in enumerate(texts):
        words = text.split()
        random.Random(number).shuffle(words)
        shuffled.append(" ".join(words))
    counts = {}
    for name, written in (("real", texts), ("shuffled", shuffled)):
        path = write_lines(tmp_path / f"{name}.jsonl", written)
        wanted = Search([jnlpba], DATA, tmp_path / name, jsonl=[path], splits={"jnlpba": "dev"})
        (counts[name],) = search(wanted).summary()
    assert counts["real"]["items"] == 1739
    # Three have four words; in three the tokenised file writes "can not" for "cannot", and in one
    # it has the note of an erratum.
    assert (counts["real"]["too_short"], counts["real"]["found"]) == (3, 1739 - 3 - 4)
    assert counts["shuffled"]["found"] == 0
