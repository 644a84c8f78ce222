import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.affinity import DAVIS, KIBA
from tests.evaluation.shared_benchmarks import needs_data, real_items

FILES = {
    "ligands_can.txt": json.dumps({"d1": "CC", "d2": "CN"}),
    "ligands_iso.txt": json.dumps({"d1": "C[C@H]", "d2": "CN"}),
    "proteins.txt": json.dumps({"t1": "MK", "t2": "MA"}),
    "kiba_binding_affinity_v2.txt": "11.1\tnan\n9.5\t12\n",
    "drug-target_interaction_affinities_Kd__Davis_et_al.2011v1.txt": "10000 1\n10 100\n",
    "folds/test_fold_setting1.txt": "[2, 0]",
    "folds/train_fold_setting1.txt": "[[1], [1]]",
}


def read(tmp_path, benchmark=KIBA, split="", changed=None, **conventions):
    folder = tmp_path / benchmark.folder
    for name, text in {**FILES, **(changed or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return benchmark.read(benchmark.source(tmp_path, split), benchmark.choose(conventions))


def test_the_known_pairs_of_a_fold_are_read(tmp_path):
    items = read(tmp_path)
    assert [(item.id, item.document, item.value) for item in items] == [
        ("d2/t2", "t2", 12.0), ("d1/t1", "t1", 11.1),
    ]  # fmt: skip
    assert items[0].text == "Drug (SMILES): CN\nTarget t2: MA"
    assert [item.id for item in read(tmp_path, split="train")] == ["d2/t1"]
    assert "C[C@H]" in read(tmp_path, smiles="isomeric")[1].text


def test_a_dissociation_constant_is_told_as_its_logarithm(tmp_path):
    items = read(tmp_path, DAVIS)
    assert [(item.id, item.document) for item in items] == [("d2/t1", "d2"), ("d1/t1", "d1")]
    assert [item.value for item in items] == pytest.approx([8.0, 5.0])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("proteins.txt", "[]", "proteins.txt must be a JSON object of texts"),
        ("proteins.txt", '{"t1": "MK", "t', "proteins.txt:1 is not JSON"),
        ("kiba_binding_affinity_v2.txt", "1 2\n3 4 5\n", "v2.txt:2 has 3 columns; .* 2 targets"),
        ("kiba_binding_affinity_v2.txt", "1 2\n", "v2.txt has 1 lines; .* 2 drugs; .*cut off"),
        ("kiba_binding_affinity_v2.txt", "1 2\nx 3\n", "v2.txt:2 holds what is no number"),
        ("folds/test_fold_setting1.txt", "[3]", "names pair 3; there are 0 to 2"),
        ("folds/test_fold_setting1.txt", "{}", "must be a JSON list of places"),
        ("folds/test_fold_setting1.txt", "[]", "test_fold_setting1.txt holds no item"),
    ],
)
def test_another_format_is_refused_with_its_place(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, changed={name: text})


def test_an_absent_file_is_named_with_its_download(tmp_path):
    with pytest.raises(UserError, match=r"extra_dta/davis/ligands_can.txt is missing.*DeepDTA"):
        DAVIS.read(DAVIS.source(tmp_path), DAVIS.choose({}))


@needs_data
@pytest.mark.parametrize(
    ("benchmark", "test", "train", "documents"),
    [(DAVIS, 5010, 25046, 68), (KIBA, 19709, 98545, 229)],
    ids=lambda one: getattr(one, "name", None),
)
def test_the_real_files_hold_what_they_should(benchmark, test, train, documents):
    items = real_items(benchmark)
    assert len({item.id for item in items}) == len(items) == test
    assert len({item.document for item in items}) == documents
    assert len(real_items(benchmark, "train")) == train
    some = items[:1500]
    tally = benchmark.score(some, [item.value for item in some], {})
    assert (tally.value(), tally.value("rm2")) == (1.0, pytest.approx(1.0))
    assert tally.value("mse") == pytest.approx(0.0)
    assert benchmark.score(some, [None] * len(some), {}).value() == 0.0
