import pytest

from megatron_biollm.evaluation.items import TripleItem
from megatron_biollm.evaluation.triple_text import read_triples, write_triples

NAMED = TripleItem(
    "1",
    "1",
    "text",
    (("D1", "6528", "Association"),),
    (("D1", ("goitre", "Goiter")), ("6528", ("NIS",)), ("D2", ("goitre",))),
    ("Association", "Bind"),
)
PLAIN = TripleItem("1", "1", "text", (("Psoralen", "MAO-B", "inhibitor"),))


def test_what_is_written_is_read_back():
    assert read_triples(write_triples(PLAIN), PLAIN) == PLAIN.triples
    assert read_triples(write_triples(NAMED), NAMED) == NAMED.triples


def test_an_entity_is_written_by_a_name_that_no_other_has():
    assert write_triples(NAMED) == "Goiter\tNIS\tAssociation"


def test_names_and_relations_are_known_in_any_case():
    assert read_triples("GOITER\tnis\tassociation", NAMED) == NAMED.triples


@pytest.mark.parametrize("line", ["- Goiter | NIS | Association", "1. Goiter\tNIS\tAssociation"])
def test_a_list_and_bars_are_read(line):
    assert read_triples(line, NAMED) == NAMED.triples


def test_an_unknown_name_stays_as_it_is():
    assert read_triples("asthma\tNIS\tBind", NAMED) == (("asthma", "6528", "Bind"),)


def test_none_is_no_relation():
    assert write_triples(TripleItem("1", "1", "text", ())) == "none"
    assert read_triples("none", NAMED) == ()


@pytest.mark.parametrize("answer", ["", "a\tb", "a b c", "goitre\tNIS\tHates", "a\t\tBind"])
def test_an_answer_without_a_readable_line_is_unreadable(answer):
    assert read_triples(answer, NAMED) is None


def test_a_fourth_part_is_kept():
    assert read_triples("Goiter\tNIS\tBind\tNovel", NAMED) == (("D1", "6528", "Bind", "Novel"),)
