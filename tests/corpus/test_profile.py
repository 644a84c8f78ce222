import json
import random

from megatron_biollm.corpus.document import Document, Section
from megatron_biollm.corpus.profile import SAMPLES, Profile, merge_profiles
from megatron_biollm.corpus.shards import WriteSources
from megatron_biollm.corpus.steps import to_datatrove

DOCUMENTS = [
    Document("x" * (i + 1), str(i), "pubmed", "CC BY" if i % 2 else None, f"{1990 + i % 3}-01")
    for i in range(40)
]


def profile(documents):
    made = Profile()
    for document in documents:
        made.add(document)
    return made.to_dict()


def test_every_document_is_counted_once_under_each_heading():
    made = profile(DOCUMENTS)
    assert made["years"] == {"1990": 14, "1991": 13, "1992": 13}
    assert made["licences"] == {"not stated": 20, "CC BY": 20}
    assert made["languages"] == {"not stated": 40}
    assert made["lengths"] == {"1": 1, "2": 2, "3": 4, "4": 8, "5": 16, "6": 9}


def test_parts_add_up_to_the_whole_in_any_order():
    parts = [profile(DOCUMENTS[i::4]) for i in range(4)]
    random.Random(1).shuffle(parts)
    assert merge_profiles(parts) == profile(DOCUMENTS)


def test_a_few_documents_are_shown_whatever_their_number():
    made = profile(DOCUMENTS)
    assert len(made["samples"]) == SAMPLES
    assert {sample["id"] for sample in made["samples"]} != {str(i) for i in range(SAMPLES)}


def test_a_date_without_a_year_is_not_stated():
    odd = [Document("text", str(i), "x", date=date) for i, date in enumerate(["5", "20260", "May"])]
    assert profile(odd)["years"] == {"not stated": 3}


def test_licences_worded_for_one_article_each_do_not_fill_the_memory():
    made = Profile()
    for i in range(1000):
        made.add(Document("text", str(i), "x", licence=f"© {i} " + "y" * 500))
    assert len(made.licences) == 201 and made.licences["(others)"] == 800
    assert max(map(len, made.licences)) == 120


def test_the_sidecar_of_a_shard_holds_the_profile_of_its_source(tmp_path):
    other = Document("t", "1", "pmc", sections=(Section("title", 0, 1),))
    given = [to_datatrove(document) for document in [*DOCUMENTS, other]]
    list(WriteSources(tmp_path).run(iter(given)))
    sidecar = json.loads((tmp_path / "pubmed" / "00000.json").read_text())
    assert sidecar["profile"] == profile(DOCUMENTS)
    sidecar = json.loads((tmp_path / "pmc" / "00000.json").read_text())
    assert sidecar["profile"]["samples"][0]["sections"] == ["title"]
