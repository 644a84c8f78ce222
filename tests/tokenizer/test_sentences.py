import json
from pathlib import Path

import pytest
from nltk.tokenize.punkt import PunktSentenceTokenizer

from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.sentences import (
    SentenceSplitter,
    biomedical_parameters,
    learn_parameters,
    load_punkt,
)

SENTENCES = [
    "Rats were given 5 mg/kg i.v. every day.",
    "Doses were injected i.p. or s.c. as stated.",
    "This was shown by Smith et al. in mice.",
    "Growth was slow (see Fig. 3 and Figs. 4 and 5).",
    "Several drugs, e.g. aspirin, i.e. acetylsalicylic acid, were compared.",
    "Survival was 5 vs. 7 months.",
    "Cultures of E. coli and of Candida spp. were positive.",
    "Patients took 10 mg b.i.d. with food.",
    "About approx. 30 cases are known.",
    "It was seen in ref. 12 and in eq. 4.",
    "Nothing else was observed.",
    "The trial ended in May.",
    "We gave the drug p.o. for a week.",
    "The mean was 3.5 mg.",
]


def splits_found(tokenizer):
    """How many of the sentences come out whole from a text made of all of them."""
    found = tokenizer.tokenize(" ".join(SENTENCES))
    return sum(sentence in found for sentence in SENTENCES)


def test_sentences_with_abbreviations_stay_whole():
    assert splits_found(load_punkt()) == len(SENTENCES)


def test_the_learned_parameters_are_better_than_none_and_than_the_stock_ones():
    assert splits_found(PunktSentenceTokenizer()) <= len(SENTENCES) - 5
    try:
        stock = load_punkt("english")
    except UserError:
        pytest.skip("nltk's own parameters are not on this machine")
    assert splits_found(stock) < len(SENTENCES)


def test_the_list_holds_what_biomedical_text_abbreviates():
    known = biomedical_parameters()["abbreviations"]
    assert {"al", "approx", "e.g", "fig", "figs", "i.e", "i.p", "i.v", "p.o", "spp", "vs"} <= set(
        known
    )
    assert known == sorted(set(known))
    assert not {"patients", "study", "treatment", "cells"} & set(known)


def test_with_keep_newlines_nothing_is_lost():
    text = "One i.v. dose.\n\n  Two doses.\tThree\n"
    assert SentenceSplitter().load()(text) == ["One i.v. dose.", "Two doses.", "Three"]
    kept = SentenceSplitter(keep_newlines=True).load()(text)
    assert "".join(kept) == text.rstrip("\n") or "".join(kept) == text
    assert kept[0] == "One i.v. dose.\n\n  "


def test_long_texts_are_split_where_megatron_splits_them():
    text = "word " * 250_000
    parts = SentenceSplitter().load()(text)
    assert [len(part) for part in parts] == [999_999, 249_999]


def test_a_language_without_data_is_named():
    with pytest.raises(UserError, match="no Punkt data for --lang klingon.*--lang biomedical"):
        load_punkt("klingon")


def test_abbreviations_are_learned_from_text():
    lines = [
        "The drug was given i.v. to the animals (Fig. 1).",
        "As Smith et al. reported, it was given vs. placebo.",
        "The animals lived. The drug helped. Nothing was seen. It was the placebo.",
        "They lived long and it helped them all; nothing else was seen with placebo or drug.",
    ]
    learned = learn_parameters([" ".join(lines)] * 300)
    assert {"i.v", "al", "vs", "fig"} <= set(learned["abbreviations"])
    assert not {"lived", "helped", "seen", "placebo"} & set(learned["abbreviations"])
    assert "the" in learned["sentence_starters"]


def test_the_parameters_are_plain_words_and_no_text():
    path = Path(__file__).parents[2] / "megatron_biollm/tokenizer/biomedical_sentences.json"
    assert path.stat().st_size < 4000
    for words in json.loads(path.read_text(encoding="utf-8")).values():
        assert all(" " not in word and len(word) <= 20 for word in words)
