import json

import pytest

from megatron_biollm.corpus.document import Document, Section


def of(*parts):
    return Document.of_sections(parts, id="1", source="text")


def texts(document):
    return {s.name: document.text[s.start : s.end] for s in document.sections}


def test_sections_are_joined_by_blank_lines_and_marked():
    document = of(("title", " A title "), ("abstract", ""), ("body", "Text."))
    assert document.text == "A title\n\nText."
    assert texts(document) == {"title": "A title", "body": "Text."}
    assert of(("title", " "), ("body", "\n")) is None


def test_a_document_comes_back_from_its_json_line():
    document = Document(
        "β text", "7", "pubmed", "CC0", "2020-01", "en", (Section("abstract", 0, 6),), {"pmid": "7"}
    )
    assert Document.from_json(json.loads(document.to_json())) == document
    assert json.loads(Document("t", "1", "text").to_json()) == {
        "text": "t", "id": "1", "source": "text"
    }  # fmt: skip


def test_an_edit_moves_the_sections_along():
    document = of(("title", "John Smith"), ("body", "John has a cold."))
    edited = document.edit([(0, 10, "Al"), (12, 16, "Alexander")])
    assert edited.text == "Al\n\nAlexander has a cold."
    assert texts(edited) == {"title": "Al", "body": "Alexander has a cold."}


def test_an_insertion_belongs_to_the_section_it_touches_first():
    document = of(("a", "one"), ("b", "two"))
    assert texts(document.edit([(5, 5, ">>")])) == {"a": "one", "b": ">>two"}
    assert texts(document.edit([(3, 3, "<<")])) == {"a": "one<<", "b": "two"}


def test_a_replacement_over_a_border_belongs_to_the_section_it_starts_in():
    document = of(("a", "one"), ("b", "two"))
    assert texts(document.edit([(2, 6, "X")])) == {"a": "onX", "b": "wo"}


def test_a_section_that_loses_its_text_is_left_out():
    document = of(("a", "one"), ("b", "two"))
    assert texts(document.edit([(0, 3, "")])) == {"b": "two"}


@pytest.mark.parametrize("edits", [[(0, 2, ""), (1, 3, "")], [(0, 99, "")], [(3, 2, "")]])
def test_overlapping_edits_are_refused(edits):
    with pytest.raises(ValueError, match="overlaps"):
        of(("a", "one")).edit(edits)
