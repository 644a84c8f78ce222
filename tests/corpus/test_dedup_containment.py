"""A document that a longer one holds is found, however the work is shared, and one of two stays."""

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.config import ContainmentConfig
from megatron_biollm.corpus.dedup.containment import Contained, Shares, contained_filter
from megatron_biollm.corpus.dedup.shingles import hash_words, shingle
from megatron_biollm.corpus.dedup.sketches import SharedShingles, Sketches, group_sizes, sample
from tests.corpus.made_dedup import find_contained
from tests.corpus.made_texts import Author, document, run_step, sharded

CONFIG = ContainmentConfig()


def dropped(shards, folder, config=CONFIG, tasks=3):
    """Identifier of each dropped document and what is given as the reason."""
    find_contained(shards, folder, config, tasks)
    found = {}
    for rank, shard in enumerate(shards):
        step = contained_filter(folder)
        left = {document.id for document in run_step(step, shard, rank, len(shards))}
        details = {sample["id"]: sample["detail"] for sample in step.flow.samples}
        found |= {d.id: details.get(d.id) for d in shard if d.id not in left}
    return found


@pytest.fixture
def author():
    return Author(11, vocabulary=20000)


def articles(author, count, words=1500):
    abstracts = [author.text(200) for _ in range(count)]
    full = [f"{author.text(300)}\n\n{text}\n\n{author.text(words)}" for text in abstracts]
    return abstracts, full


@pytest.mark.parametrize(("share", "recall"), [(0.0, 1.0), (0.03, 0.95)])
def test_abstracts_in_their_full_texts_are_found_and_nothing_else(author, tmp_path, share, recall):
    abstracts, full = articles(author, 120)
    documents = [document(f"f{n}", text, "pmc") for n, text in enumerate(full)]
    documents += [document(f"a{n}", author.edited(t, share)) for n, t in enumerate(abstracts)]
    documents += [document(f"o{n}", author.text(200)) for n in range(120)]
    found = dropped(sharded(documents, 3), tmp_path)
    assert len(found) >= recall * len(abstracts)
    assert {id[0] for id in found} == {"a"}
    assert all(
        detail.startswith(f"contained_in pmc f{id[1:]},") for id, detail in found.items() if detail
    )


def test_the_result_does_not_depend_on_how_the_work_is_shared(author, tmp_path):
    abstracts, full = articles(author, 10)
    documents = [document(f"{n}", text) for n, text in enumerate(abstracts + full)]
    one = dropped([documents], tmp_path / "1", tasks=1)
    many = dropped([[], *sharded(documents[::-1], 4)], tmp_path / "2", tasks=5)
    assert set(one) == set(many) == {str(n) for n in range(10)}


def test_of_texts_inside_one_another_the_longest_stays(author, tmp_path):
    texts = [author.text(150)]
    for _ in range(3):
        texts.append(f"{texts[-1]} {author.text(40)}")
    found = dropped([[document(str(n), text) for n, text in enumerate(texts)]], tmp_path)
    assert set(found) == {"0", "1", "2"}
    assert all(detail.startswith("contained_in pubmed 3,") for detail in found.values())


def test_of_equal_texts_the_one_of_the_preferred_source_stays(author, tmp_path):
    text = author.text(150)
    pair = [document("1", text, "pmc"), document("2", text, "patents")]
    assert set(dropped([pair], tmp_path / "1")) == {"2"}
    assert set(dropped([pair[:1], [], pair[1:]], tmp_path / "2")) == {"2"}


def test_a_part_is_not_the_whole(author, tmp_path):
    """An abstract of which half is new is no copy."""
    known, new = author.text(100), author.text(100)
    documents = [document("1", f"{known} {new}"), document("2", f"{known} {author.text(2000)}")]
    assert dropped([documents], tmp_path) == {}


def test_phrases_that_everybody_uses_do_not_count_for_or_against(author, tmp_path):
    phrases = [author.text(12) for _ in range(30)]
    mixed = [
        document(str(n), " ".join([*phrases, author.text(150 if n else 100)])) for n in range(40)
    ]
    assert dropped([mixed], tmp_path / "shared") == {}
    inside = document("in", " ".join([*phrases, mixed[0].text.split(phrases[-1])[1]]))
    longer = document("out", f"{inside.text} {author.text(100)}")
    assert set(dropped([[*mixed[1:], inside, longer]], tmp_path / "inside")) == {"in"}


def test_very_short_documents_are_not_judged(author, tmp_path):
    title = author.text(9)
    documents = [document("1", title), document("2", f"{title} {author.text(300)}")]
    assert dropped([documents], tmp_path) == {}


def test_empty_shards_pass(tmp_path):
    assert dropped([[], []], tmp_path) == {}


def test_sampled_shingles_are_the_same_in_every_document(author):
    text = author.text(400)
    longer = f"{author.text(50)} {text}"
    sampled = sample(*shingle(hash_words([text, longer]), 5), 4)
    first, second = (set(sampled["hash"][sampled["document"] == n].tolist()) for n in (0, 1))
    assert first <= second
    assert len(first) == pytest.approx(100, abs=30)


def test_group_sizes():
    assert group_sizes(np.array([1, 1, 5, 7, 7, 7])).tolist() == [2, 2, 1, 3, 3, 3]
    assert group_sizes(np.array([])).tolist() == []


class TestRefused:
    @pytest.fixture
    def shards(self, author):
        return [[document("1", author.text(60))], [document("2", author.text(60))]]

    def test_a_missing_task(self, shards, tmp_path):
        run_step(Sketches(CONFIG, tmp_path), shards[0], 0, 2)
        with pytest.raises(UserError, match="not done"):
            run_step(SharedShingles(CONFIG, tmp_path), None, 0, 1)

    def test_counts_of_other_sketches(self, shards, tmp_path):
        find_contained(shards, tmp_path)
        run_step(Sketches(CONFIG, tmp_path), shards[1], 0, 2)
        with pytest.raises(UserError, match="sketches differs"):
            run_step(Shares(CONFIG, tmp_path), None, 0, 2)

    def test_another_rule_than_the_shares_were_found_by(self, shards, tmp_path):
        find_contained(shards, tmp_path)
        with pytest.raises(UserError, match="rule differs"):
            run_step(Contained(ContainmentConfig(share=0.9), tmp_path), None, 0, 1)

    def test_other_documents_than_were_judged(self, shards, tmp_path):
        find_contained(shards, tmp_path)
        with pytest.raises(UserError, match="are not those"):
            run_step(contained_filter(tmp_path), shards[1], 0, 2)

    @pytest.mark.parametrize("stage", [Shares, Contained])
    def test_tasks_that_do_not_fit(self, shards, tmp_path, stage):
        find_contained(shards, tmp_path)
        with pytest.raises(UserError, match="4 tasks for"):
            run_step(stage(CONFIG, tmp_path), None, 0, 4)
