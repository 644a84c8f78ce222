"""Names, places and words come from the packages that carry them, once in a process."""

import pytest

from megatron_biollm.corpus.deidentify.gazetteer import load_gazetteer
from megatron_biollm.corpus.deidentify.lexicon import Lexicon


@pytest.fixture(scope="module")
def lexicon():
    return Lexicon.load()


def test_the_lists_are_read_once_in_a_process(lexicon):
    assert Lexicon.load() is lexicon


def test_towns_of_the_states_are_known_down_to_the_small_ones():
    towns = load_gazetteer().towns
    assert {"Springfield", "Abita Springs", "Autauga County", "Kraków", "Zürich"} <= towns
    assert "Ho" not in towns and not any("/" in town or "(" in town for town in towns)
    assert 15_000 < len(towns) < 25_000


def test_countries_states_and_peoples_may_stand(lexicon):
    for name in ("france", "california", "finnish", "u.s.", "scotland"):
        assert name in lexicon.permitted, name


def test_cities_and_names_are_no_words(lexicon):
    for word in ("chicago", "miami", "john", "mary", "kowalski"):
        assert word not in lexicon.words, word
    for word in ("hello", "orchestra", "patient", "gastric", "hill", "brown"):
        assert word in lexicon.words, word
