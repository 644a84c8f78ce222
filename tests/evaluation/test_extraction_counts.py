"""Readers of entities and relations find what the published files hold."""

import dataclasses
import shutil

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.biored import read_articles
from megatron_biollm.evaluation.benchmarks.brat import read_brat
from megatron_biollm.evaluation.benchmarks.jnlpba import FIVE
from megatron_biollm.evaluation.suite import all_benchmarks
from tests.evaluation.shared_benchmarks import DATA, needs_data, real_items

pytestmark = needs_data


def items(name, split="", files=None, **conventions):
    return real_items(all_benchmarks()[name], split, files, **conventions)


# Sentences and mentions. Of BC5CDR's diseases the tokenised version has two mentions more.
SPANS = [
    ("ncbi_disease", "train", {}, 5432, 5145),
    ("ncbi_disease", "dev", {}, 923, 787),
    ("bc5cdr_chemical", "train", {}, 4560, 5203),
    ("bc5cdr_chemical", "dev", {}, 4581, 5347),
    ("bc5cdr_chemical", "test", {}, 4797, 5385),
    ("bc5cdr_disease", "train", {"mentions": "pubtator"}, 4560, 4182),
    ("bc5cdr_disease", "dev", {}, 4581, 4246),
    ("bc5cdr_disease", "dev", {"mentions": "pubtator"}, 4579, 4244),
    ("bc5cdr_disease", "test", {"mentions": "pubtator"}, 4797, 4424),
    ("bc2gm", "test", {}, 5000, 6331),
    ("bc2gm", "test", {"scoring": "bio"}, 5000, 6325),
    ("bc2gm", "train", {"scoring": "bio"}, 12500, 15197),
    ("bc2gm", "dev", {"scoring": "bio"}, 2500, 3061),
    ("bc2gm", "official_train", {}, 15000, 18265),
    ("jnlpba", "dev", {}, 1739, 4551),
    ("jnlpba", "sample", {}, 105, 203),
    ("jnlpba", "train", {}, None, 51301),
]


@pytest.mark.parametrize(("name", "split", "conventions", "sentences", "mentions"), SPANS)
def test_sentences_and_mentions_are_as_many_as_published(
    name, split, conventions, sentences, mentions
):
    found = items(name, split, **conventions)
    assert sentences in (None, len(found))
    assert sum(len(one.spans) for one in found) == mentions
    assert len({one.id for one in found}) == len(found)


def test_sentences_know_their_articles():
    assert len({one.document for one in items("ncbi_disease", "train")}) == 592
    assert len({one.document for one in items("bc5cdr_disease", "dev")}) == 500
    assert len({one.document for one in items("jnlpba", "dev")}) == 200
    assert len({one.document for one in items("jnlpba", "train")}) == 2000


def test_a_sentence_is_the_article_s_own_text():
    first = items("ncbi_disease", "dev")[1]
    assert first.text.startswith("Germline mutations in BRCA1 are responsible for most cases")
    assert [first.text[one.start : one.end] for one in first.spans] == [
        "inherited breast and ovarian cancer"
    ]


def test_offsets_of_bc2gm_skip_white_space_and_take_the_last_letter():
    one = items("bc2gm", "test")[0]
    assert [one.text[span.start : span.end] for span in one.spans] == ["trio", "Abl"]


def test_alternatives_of_bc2gm_belong_to_genes_but_for_a_few():
    found = items("bc2gm", "test")
    extents = {(one.id, span) for one in found for _, some in one.alternatives for span in some}
    genes = sum(gene not in one.spans for one in found for gene, _ in one.alternatives)
    assert (len(extents), genes) == (5068, 27)


# Candidate pairs, and those of each relation. DDI's 27,792 pairs have one without a type.
PAIRS = [
    ("chemprot", "train", 18300, (768, 2254, 173, 235, 727)),
    ("chemprot", "dev", 11594, (550, 1094, 116, 199, 457)),
    ("chemprot", "sample", 830, (78, 89, 13, 14, 45)),
    ("ddi2013", "train", 27791, (826, 1687, 1319, 188)),
    ("ddi2013", "test", 5716, (221, 360, 302, 96)),
    ("gad", "train", 4261, (2227,)),
    ("gad", "dev", 535, (293,)),
    ("gad", "test", 534, (281,)),
    ("euadr", "test", 355, (262,)),
]


@pytest.mark.parametrize(("name", "split", "pairs", "relations"), PAIRS)
def test_pairs_and_relations_are_as_many_as_published(name, split, pairs, relations):
    found = items(name, split)
    answers = [one.answer for one in found]
    assert len(found) == pairs
    assert tuple(answers.count(label) for label in range(1, len(relations) + 1)) == relations
    assert len({one.id for one in found}) == len(found)


def test_the_five_groups_of_chemprot_add_up_to_the_published_relations():
    assert [sum(one[3]) for one in PAIRS[:3]] == [4157, 2416, 239]
    assert [sum(one[3]) for one in PAIRS[3:5]] == [4020, 979]


def test_the_ten_folds_of_gad_are_read_where_they_are_asked():
    found = items("gad", "test", folds="10")
    assert len(found) == 5330
    assert len({one.group for one in found}) == 10


def test_two_mentions_are_masked_or_marked():
    masked, marked = (items("ddi2013", "test", mentions=how)[7] for how in ("masked", "marked"))
    assert masked.question.count("@DRUG$") == 2
    assert "<drug>lamivudine</drug>" in marked.question
    overlapping = items("chemprot", "dev")
    assert any("@CHEMICAL-GENE$" in one.question for one in overlapping)


TRIPLES = [
    ("biored", "train", 400, 4178),
    ("biored", "dev", 100, 1162),
    ("bc5cdr_cid", "train", 500, 1038),
    ("bc5cdr_cid", "dev", 500, 1012),
    ("bc5cdr_cid", "test", 500, 1066),
    ("kd_dti", "dev", 1000, 2269),
    ("kd_dti", "test", 1159, 1567),
]


@pytest.mark.parametrize(("name", "split", "documents", "triples"), TRIPLES)
def test_documents_and_triples_are_as_many_as_published(name, split, documents, triples):
    found = items(name, split)
    assert len(found) == documents
    assert sum(len(one.triples) for one in found) == triples


@pytest.mark.parametrize(("split", "abstracts"), [("train", 1108), ("dev", 157), ("test", 315)])
def test_abstracts_of_hoc_are_as_many_as_lines_below_the_header(split, abstracts):
    assert len(items("hoc", split)) == abstracts


def test_entities_that_share_all_names_are_told_apart_where_they_are_given():
    given, found = (items("biored", "dev", entities=how) for how in ("given", "found"))
    marked = [name for one in given for _, names in one.names for name in names if "[" in name]
    assert marked
    assert all("Entities:" in one.text for one in given)
    assert not any("Entities:" in one.text for one in found)


@pytest.mark.parametrize(
    ("plain", "other", "mentions"),
    [
        ("Dev.PubTator", "Dev.BioC.JSON.gz", 3533),
        ("Train.PubTator.gz", "Train.BioC.XML.gz", 13351),
    ],
)
def test_bioc_in_json_and_xml_says_what_pubtator_says(plain, other, mentions):
    articles, same = (read_articles(DATA / "biored" / name) for name in (plain, other))
    for one in (*articles, *same):
        one.mentions.sort(key=str)
        one.relations.sort()
    assert articles == same
    assert sum(len(one.mentions) for one in articles) == mentions


def test_mentions_of_the_standoff_have_their_types():
    found = [one.type for text in read_brat(DATA / "jnlpba/standoff_train.tar.gz", FIVE)
             for one in text.spans]  # fmt: skip
    assert [found.count(kind) for kind in FIVE] == [30269, 9533, 951, 3830, 6718]


def test_a_folder_is_read_as_the_archive(tmp_path):
    shutil.unpack_archive(DATA / "jnlpba/standoff_train.tar.gz", tmp_path)
    assert read_brat(tmp_path, FIVE) == read_brat(DATA / "jnlpba/standoff_train.tar.gz", FIVE)


# The same reader, another file of the same format, by its path.
OTHER_FILES = [
    ("ncbi_disease", {"abstracts": "NCBIdevelopset_corpus.txt",
                      "sentences": "conll/devel.tsv"}, 923),
    ("bc5cdr_chemical", {"abstracts": "CDR_DevelopmentSet.PubTator.txt",
                         "sentences": "BC5CDR-chem-IOB/devel.tsv"}, 4581),
    ("jnlpba", {"sentences": "mtl_devel.tsv"}, 1739),
    ("biored", {"documents": "Dev.BioC.JSON"}, 100),
    ("kd_dti", {"documents": "valid.json"}, 1000),
    ("gad", {"fold1": "2/test.tsv"}, 533),
    ("chemprot", {role: f"chemprot_sample/chemprot_sample_{file}.tsv" for role, file in (
        ("abstracts", "abstracts"), ("entities", "entities"), ("gold", "gold_standard"))}, 830),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "count"), OTHER_FILES, ids=lambda one: str(one)[:20])
def test_another_split_of_the_format_is_read_by_its_path(name, files, count):
    assert len(items(name, "test", files)) == count
    absolute = {role: str(DATA / all_benchmarks()[name].folder / path)
                for role, path in files.items()}  # fmt: skip
    assert len(items(name, "test", absolute)) == count


@pytest.mark.parametrize("name", ["ncbi_disease", "jnlpba", "chemprot", "biored"])
def test_a_test_split_that_is_not_there_names_the_download(name):
    with pytest.raises(UserError, match=r"is missing; it is part of .*http"):
        items(name, "test")


def test_texts_of_another_split_are_refused():
    files = {"abstracts": "CDR_DevelopmentSet.PubTator.txt"}
    with pytest.raises(UserError, match="must be of the same split"):
        items("bc5cdr_disease", "test", files)
    with pytest.raises(UserError, match="no sentence of this split"):
        items("bc2gm", "test", {"genes": "original/train/GENE.eval"})
    with pytest.raises(UserError, match="no sentence is"):
        items("bc2gm", "test", {"tokens": "conll/devel.tsv"}, scoring="bio")
    with pytest.raises(UserError, match="no abstract of this split"):
        items("chemprot", "dev", {"gold": "chemprot_training/chemprot_training_gold_standard.tsv"})


def test_merged_types_of_jnlpba_are_one_type_of_the_score():
    benchmark = all_benchmarks()["jnlpba"]
    found = items("jnlpba", "dev")
    wrong = [tuple(dataclasses.replace(span, type="RNA") for span in one.spans) for one in found]
    values = {
        types: benchmark.score(found, wrong, {"types": types}).value()
        for types in ("five", "merged")
    }
    assert values["merged"] == 1.0
    assert values["five"] < 0.1
