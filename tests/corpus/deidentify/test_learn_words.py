"""Words are learned from texts; names that slipped into lower case are not."""

import gzip

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.deidentify.learn_words import learn_words, learn_words_file
from megatron_biollm.corpus.deidentify.name_lists import load_names


def learned(*texts: str) -> list[str]:
    return learn_words(texts, load_names())


def test_a_word_needs_two_texts():
    assert learned("The gastric acid.", "An acid reflux, gastric.", "Reflux.") == [
        "acid",
        "gastric",
    ]


def test_a_name_needs_more_texts_in_lower_case_than_with_a_capital():
    slips = ["Seen by anna.", "Ask anna by noon.", "Not anna."]
    assert learned(*slips, *["Anna."] * 4) == ["by"]
    assert learned(*slips, "Anna.") == ["anna", "by"]
    assert "grace" in learned("With grace.", "The grace.", "Some grace.")


def test_texts_without_capitals_teach_nothing():
    assert learned("dr quimby came", "dr quimby left", "a " + "quimby " * 90 + "X") == []


def test_addresses_codes_and_parts_of_words_are_left_out():
    text = "Mail quorvax@host, www.quorvax.org, quorvax-2, quorvax_b, path/quorvax, quorvax's."
    assert learned(text, text) == ["quorvax"]
    assert learned(text.replace("quorvax's", "it"), text.replace("quorvax's", "it")) == ["it"]


def test_files_of_every_form_are_read_and_the_list_is_the_same_each_time(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "The gastric acid.", "id": "1"}\n')
    (tmp_path / "b.tsv").write_text("Acid of the stomach\tX\nA gastric ulcer\tY\n")
    counts, text = learn_words_file([tmp_path / "a.jsonl", tmp_path / "b.tsv"], tmp_path / "w.gz")
    first = (tmp_path / "w.gz").read_bytes()
    assert gzip.decompress(first) == b"gastric\n"
    assert counts == {"texts": 3, "words": 1} and "1 words from 3 texts" in text
    learn_words_file([tmp_path / "a.jsonl", tmp_path / "b.tsv"], tmp_path / "w.gz")
    assert (tmp_path / "w.gz").read_bytes() == first


def test_texts_without_words_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(UserError, match="running text"):
        learn_words_file([tmp_path / "a.txt"], tmp_path / "w.gz")
    assert not (tmp_path / "w.gz").exists()
