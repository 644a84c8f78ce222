"""Files of entities and relations that are not as published: an error that says where and what."""

import gzip
import json
import zipfile

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.suite import all_benchmarks

PUBTATOR = "1|t|Colon cancer.\n1|a|It is bad.\n1\t0\t12\tColon cancer\tDisease\tD1\n"
BIO = "Colon\tB-Disease\ncancer\tI-Disease\n.\tO\n\nIt\tO\nis\tO\nbad\tO\n.\tO\n"
IN = "S1 Two genes.\n"
ABSTRACTS = "1\tATP binds X.\tYes.\n"
CHEMPROT_ENTITIES = "1\tT1\tCHEMICAL\t0\t3\tATP\n1\tT2\tGENE-Y\t10\t11\tX\n"
DDI = (
    '<document id="d"><sentence id="s" text="A and B">'
    '<entity id="e0" charOffset="0-0" text="A"/><entity id="e1" charOffset="6-6" text="B"/>'
    '<pair id="p" e1="e0" e2="e1" ddi="true" type="effect"/></sentence></document>'
)
BIORED = (
    "1|t|A and B.\n1|a|C.\n1\t0\t1\tA\tGene\tG1\n1\t6\t7\tB\tGene\tG2\n1\tBind\tG1\tG2\tNovel\n"
)
HOC = "pmid\ttext\tlabels\n1\tText.\tresisting cell death;inducing angiogenesis\n"
CID = PUBTATOR + "1\t20\t23\tbad\tChemical\tC1\n1\tCID\tC1\tD1\n"
KD = {"1": {"title": "T", "abstract": "A", "triples": []}}
GOOD = {
    "ncbi_disease": {"abstracts": PUBTATOR.replace("Disease\tD", "Modifier\tD"), "sentences": BIO},
    "bc5cdr_disease": {"abstracts": PUBTATOR, "sentences": BIO},
    "bc2gm": {
        "sentences": IN, "genes": "S1|3 7|genes\n", "alternatives": "S1|0 7|Two genes\n",
        "tokens": "Two\tO\ngenes\tB-GENE\n.\tO\n",
    },
    "jnlpba": {"sentences": "###MEDLINE:1\n\nIL-2\tB-DNA\ngene\tI-DNA\n"},
    "chemprot": {
        "abstracts": ABSTRACTS, "entities": CHEMPROT_ENTITIES,
        "gold": "1\tCPR:3\tArg1:T1\tArg2:T2\n",
    },
    "ddi2013": {"archive": DDI},
    "gad": {"fold1": "index\tsentence\tlabel\n0\t@GENE$ and @DISEASE$\t1\n"},
    "biored": {"documents": BIORED},
    "kd_dti": {"documents": json.dumps(KD)},
    "hoc": {"abstracts": HOC},
    "drugprot": {
        "abstracts": ABSTRACTS, "entities": CHEMPROT_ENTITIES,
        "gold": "1\tINHIBITOR\tArg1:T1\tArg2:T2\n1\tPART-OF\tArg1:T1\tArg2:T2\n",
    },
    "bc5cdr_cid": {"abstracts": CID},
}  # fmt: skip


def read(name, folder, conventions=None, **changed):
    """Reads a benchmark's test split from small files, some of them changed."""
    files = {}
    for role, text in (GOOD[name] | changed).items():
        path = folder / role
        if role == "archive":
            path = folder / "ddi.zip"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("DDICorpus/Test/Test for DDI Extraction task/1.xml", text)
        else:
            path.write_text(text, encoding="utf-8")
        files[role] = str(path)
    benchmark = all_benchmarks()[name]
    source = benchmark.source(folder, "", files)
    return benchmark.read(source, benchmark.choose(conventions or {}))


@pytest.mark.parametrize("name", GOOD)
def test_the_small_files_are_fine(name, tmp_path):
    assert len(read(name, tmp_path)) in (1, 2)


def test_line_ends_of_windows_and_byte_order_marks_do_not_matter(tmp_path):
    for name, good in GOOD.items():
        if name == "ddi2013":
            continue
        (tmp_path / name).mkdir()
        changed = {role: "\ufeff" + text.replace("\n", "\r\n") for role, text in good.items()}
        assert read(name, tmp_path / name, **changed) == read(name, tmp_path / name)


BAD = [
    # Offsets that do not match the text.
    ("ncbi_disease", {"abstracts": PUBTATOR.replace("\t0\t12", "\t1\t13")}, "'olon cancer.' is"),
    ("ncbi_disease", {"abstracts": PUBTATOR.replace("\t0\t12", "\t900\t912")}, "said to be at 900"),
    ("bc2gm", {"genes": "S1|4 8|genes\n"}, "'enes.' is"),
    ("bc2gm", {"genes": "S1|3 700|genes\n"}, "said to be at 3-700"),
    ("chemprot", {"entities": CHEMPROT_ENTITIES.replace("\t0\t3", "\t0\t4")}, "at 0-4 of 1"),
    ("ddi2013", {"archive": DDI.replace("6-6", "4-4")}, "is not at 4-4 of its sentence"),
    ("biored", {"documents": BIORED.replace("\t6\t7", "\t5\t6")}, "said to be at 5-6"),
    # Labels that are not in the set.
    ("bc5cdr_disease", {"sentences": BIO.replace("Disease", "Gene")}, "has the type 'Gene'"),
    ("jnlpba", {"sentences": "IL-2\tB-lipid\n"}, "has the type 'lipid'"),
    ("chemprot", {"gold": "1\tCPR:2\tArg1:T1\tArg2:T2\n"}, "relation 'CPR:2'"),
    ("chemprot", {"entities": CHEMPROT_ENTITIES.replace("GENE-Y", "DRUG")}, "the type 'DRUG'"),
    ("drugprot", {"gold": "1\tCPR:3\tArg1:T1\tArg2:T2\n"}, "there are INDIRECT-DOWNREGULATOR"),
    ("ddi2013", {"archive": DDI.replace("effect", "affect")}, "type='affect'"),
    ("ddi2013", {"archive": DDI.replace('ddi="true"', 'ddi="maybe"')}, "ddi='maybe'"),
    ("gad", {"fold1": "a sentence\t2\n"}, "must be a sentence, a tab and 0 or 1"),
    ("biored", {"documents": BIORED.replace("Bind", "Hate")}, "must be one of Association"),
    ("biored", {"documents": BIORED.replace("Novel", "Perhaps")}, "must be one of Association"),
    # A changed format.
    ("ncbi_disease", {"abstracts": "A title\nand a text\n"}, "must be a mention or a relation"),
    ("ncbi_disease", {"abstracts": ""}, "has no article"),
    ("ncbi_disease", {"abstracts": PUBTATOR.replace("\n1\t0", "\n2\t0")}, "is of article 2"),
    ("ncbi_disease", {"abstracts": PUBTATOR.replace("\tDisease\tD1", "")}, "a mention is pmid"),
    ("bc5cdr_disease", {"sentences": BIO.replace("\t", " ")}, "must be a token, a tab and O"),
    ("bc5cdr_disease", {"sentences": ""}, "has no sentence"),
    ("jnlpba", {"sentences": "IL-2\tO\ngene\tI-DNA\n"}, "that did not begin"),
    ("jnlpba", {"sentences": "IL-2\tB-RNA\ngene\tI-DNA\n"}, "that did not begin"),
    ("bc2gm", {"sentences": "S1\n"}, "a name of its own, a space, a text"),
    ("bc2gm", {"sentences": IN + IN}, "a name of its own, a space, a text"),
    ("bc2gm", {"sentences": ""}, "has no sentence"),
    ("bc2gm", {"genes": "S1 3 7 genes\n"}, "must be name|start end|text"),
    ("bc2gm", {"genes": "S2|3 7|genes\n"}, "which is no sentence of this split"),
    ("chemprot", {"abstracts": "1\tATP binds X.\n"}, "has 2 columns"),
    ("chemprot", {"gold": "1\tCPR:3\tArg1:T1\tArg2:T9\n"}, "'T9', which is no entity"),
    ("ddi2013", {"archive": DDI.replace("charOffset", "offset")}, "has no 'charOffset'"),
    ("ddi2013", {"archive": DDI.replace("6-6", "six")}, "must be first-last"),
    ("ddi2013", {"archive": DDI.replace('e2="e1"', 'e2="e7"')}, "does not have"),
    ("ddi2013", {"archive": "<document id='d'/>"}, "has no pair of drugs"),
    ("ddi2013", {"archive": DDI[:90]}, "is no whole XML"),
    ("ddi2013", {"archive": "<!DOCTYPE d [<!ENTITY a 'b'>]>" + DDI}, "declares XML entities"),
    ("gad", {"fold1": "a sentence\n"}, "must be a sentence, a tab and 0 or 1"),
    ("gad", {"fold1": "index\tsentence\tlabel\n"}, "has no sentence"),
    ("biored", {"documents": BIORED.replace("\tG2\tNovel", "\tG3\tNovel")}, "does not mention"),
    ("biored", {"documents": BIORED.replace("\tNovel", "")}, "must be one of Association"),
    ("biored", {"documents": '{"documents": [{"id": "1"}]}'}, "article 1 has no 'passages'"),
    ("biored", {"documents": '{"documents": []}'}, "has no article"),
    ("biored", {"documents": '{"documents": ['}, "is not JSON"),
    ("biored", {"documents": "<collection><document>"}, "is no whole XML"),
    ("hoc", {"abstracts": HOC.replace("resisting cell", "resisting")}, "label 'resisting death'"),
    ("hoc", {"abstracts": HOC.replace("pmid", "id")}, "it must be pmid<tab>text<tab>labels"),
    ("hoc", {"abstracts": HOC.replace("1\tText", "Text")}, "has 2 columns"),
    ("bc5cdr_cid", {"abstracts": CID.replace("C1\tD1", "C1\tD2")}, "disease that it mentions"),
    ("bc5cdr_cid", {"abstracts": CID.replace("CID", "NONE")}, "must be CID"),
    ("kd_dti", {"documents": "[]"}, "must be an object"),
    ("kd_dti", {"documents": '{"1": {"title": "T"}}'}, "1 has no 'abstract'"),
    ("kd_dti", {"documents": json.dumps(KD)[:-5]}, "is not JSON"),
]


@pytest.mark.parametrize(("name", "changed", "reason"), BAD)
def test_a_file_that_is_not_as_published_is_refused(name, changed, reason, tmp_path):
    with pytest.raises(UserError) as error:
        read(name, tmp_path, **changed)
    assert reason in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(("name", "role"), [
    (name, role) for name, roles in GOOD.items() for role in roles if role != "tokens"
])  # fmt: skip
def test_a_missing_file_names_the_download_and_its_place(name, role, tmp_path):
    benchmark = all_benchmarks()[name]
    read(name, tmp_path)
    file = "ddi.zip" if role == "archive" else role
    (tmp_path / file).rename(tmp_path / "elsewhere")
    files = {one: "ddi.zip" if one == "archive" else one for one in GOOD[name]}
    source = benchmark.source(tmp_path, "", {one: str(tmp_path / files[one]) for one in files})
    with pytest.raises(UserError, match=r"is missing; it is part of .*https?://") as error:
        benchmark.read(source, benchmark.choose({}))
    assert str(tmp_path / file) in str(error.value)


@pytest.mark.parametrize("name", GOOD)
def test_a_split_that_there_is_not_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} has no split 'validation'; it has "):
        all_benchmarks()[name].source(tmp_path, "validation")


@pytest.mark.parametrize("name", [one for one in GOOD if one != "ddi2013"])
def test_half_a_download_is_refused(name, tmp_path):
    role, text = next(iter(GOOD[name].items()))
    data = gzip.compress(text.encode())
    (tmp_path / "half.gz").write_bytes(data[: len(data) // 2])
    benchmark = all_benchmarks()[name]
    source = benchmark.source(tmp_path, "", {role: str(tmp_path / "half.gz")})
    source = type(source)(tmp_path, source.paths, source.download, "test")
    with pytest.raises(UserError, match=r"half.gz is damaged .*download it again"):
        benchmark.read(source, benchmark.choose({}))


def test_tokens_of_other_sentences_are_refused(tmp_path):
    with pytest.raises(UserError, match="no sentence is 'Other'"):
        read("bc2gm", tmp_path, {"scoring": "bio"}, tokens="Other\tO\n")
    with pytest.raises(UserError, match=r"no article goes on with 'It was bad \.'"):
        read("bc5cdr_disease", tmp_path, sentences=BIO.replace("is\t", "was\t"))


def test_a_pair_with_two_relations_is_asked_once_for_each(tmp_path):
    items = read("drugprot", tmp_path)
    assert [one.choices[one.answer] for one in items] == ["inhibitor", "part-of"]
    assert [one.id for one in items] == ["1.T1.T2.INHIBITOR", "1.T1.T2.PART-OF"]
    assert {one.question for one in items} == {"@CHEMICAL$ binds @GENE$. Yes."}
