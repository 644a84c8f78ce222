"""Of records that fill in one form only repeated ones go; of other texts edited copies go too."""

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.cluster import Clusters
from megatron_biollm.corpus.dedup.config import ContainmentConfig, NearDuplicateConfig
from megatron_biollm.corpus.dedup.containment import Contained
from megatron_biollm.corpus.dedup.rule import like_the_first
from megatron_biollm.corpus.dedup.signatures import ROW_BYTES
from tests.corpus.made_dedup import (
    find_contained,
    find_near_duplicates,
    without_contained,
    without_near_duplicates,
)
from tests.corpus.made_texts import Author, document, run_step, sharded

CONFIG = NearDuplicateConfig()
TEMPLATE = (
    "{title}. GENERAL: {0}-year-old {1} in no acute distress. HEENT: Normocephalic, oropharynx "
    "clear, pupils equal and reactive to light. NECK: Supple without lymphadenopathy. LUNGS: {2} "
    "to auscultation bilaterally. HEART: {3} rate and rhythm, no rubs or gallops. ABDOMEN: Soft, "
    "{4}, bowel sounds present in all four quadrants. EXTREMITIES: {5} edema, pulses palpable. "
    "NEUROLOGIC: Alert and oriented, cranial nerves intact, gait steady. ASSESSMENT: {6}. PLAN: "
    "{7}. Return to the clinic as needed or if symptoms do not improve."
)


@pytest.fixture
def author():
    return Author(5)


def arms(author, source):
    """Two records of one protocol: four fifths of each are the sponsor's words."""
    protocol = [author.text(60) for _ in range(5)]
    own = [[author.text(15) for _ in protocol] for _ in range(2)]
    texts = [" ".join(f"{a} {b}" for a, b in zip(protocol, arm, strict=True)) for arm in own]
    return [document(str(number), text, source) for number, text in enumerate(texts)]


def notes(author, source, count=20):
    findings = [[author.text(words) for words in (*[1] * 6, 4, 5)] for _ in range(count)]
    texts = [TEMPLATE.format(*found, title=n) for n, found in enumerate(findings)]
    return [document(str(number), text, source) for number, text in enumerate(texts)]


@pytest.mark.parametrize("source", CONFIG.form_sources)
def test_two_arms_of_one_protocol_both_stay(author, tmp_path, source):
    assert len(without_near_duplicates([arms(author, source)], tmp_path)) == 2


def test_what_is_too_alike_for_two_articles_is_two_records(author, tmp_path):
    """The same texts from a source without a form are one too many."""
    assert len(without_near_duplicates([arms(author, "pubmed")], tmp_path)) == 1


def test_notes_of_one_template_with_other_findings_stay(author, tmp_path):
    made = notes(author, "clinical_notes")
    assert len(without_near_duplicates(sharded(made, 3), tmp_path / "notes")) == len(made)
    made = notes(author, "pubmed")
    assert len(without_near_duplicates(sharded(made, 3), tmp_path / "pubmed")) < len(made)


@pytest.mark.parametrize("source", CONFIG.form_sources)
def test_a_record_that_repeats_another_but_for_a_few_words_goes(author, tmp_path, source):
    texts = [author.text(400) for _ in range(50)]
    documents = [document(f"{n:03d}", text, source) for n, text in enumerate(texts)]
    documents += [document(f"{n}", author.edited(texts[n], 0.01), source) for n in range(50)]
    assert len(without_near_duplicates(sharded(documents, 2), tmp_path)) == 50


def test_a_record_and_an_article_are_judged_like_two_articles(author, tmp_path):
    text = author.text(300)
    pair = [document("t", text, "clinical_trials"), document("p", author.edited(text, 0.1))]
    assert without_near_duplicates([pair], tmp_path) == {"p"}


def test_the_user_says_which_sources_fill_in_forms(author, tmp_path):
    config = NearDuplicateConfig(form_sources=["registry"])
    kept = [
        without_near_duplicates([arms(author, source)], tmp_path / source, config)
        for source in ("registry", "clinical_trials")
    ]
    assert [len(ids) for ids in kept] == [2, 1]


def test_forms_never_count_as_one_sooner_than_other_texts(author, tmp_path):
    config = NearDuplicateConfig(similarity=1.0, word_similarity=1.0, form_similarity=0.1)
    assert len(without_near_duplicates([arms(author, "patents")], tmp_path, config)) == 2


@pytest.mark.parametrize("copies", [2, 4])
def test_all_edited_copies_of_a_text_go_whichever_is_kept(author, tmp_path, copies):
    texts = [author.text(220) for _ in range(60)]
    documents = [document(f"{n}", text) for n, text in enumerate(texts)]
    documents += [
        document(f"{n}-{copy}", author.edited(texts[n], 0.15))
        for n in range(60)
        for copy in range(copies)
    ]
    left = without_near_duplicates(sharded(documents, 2), tmp_path)
    assert len(documents) - len(left) >= 0.95 * 60 * copies
    assert {id.split("-")[0] for id in left} == {str(n) for n in range(60)}


class TestChains:
    """Rows that agree in as many bytes as is said, in every part of the row."""

    @staticmethod
    def chain(length, share):
        """Each row has this share of its bytes from the row before, all others anew."""
        random = np.random.default_rng(0)
        rows = [random.integers(0, 256, ROW_BYTES, np.uint8)]
        for _ in range(length - 1):
            anew = random.integers(0, 256, ROW_BYTES, np.uint8)
            rows.append(np.where(random.random(ROW_BYTES) < share, rows[-1], anew))
        return np.stack(rows)

    def test_one_that_the_next_one_joins_goes_and_the_rest_of_the_chain_stays(self):
        near, _ = like_the_first(self.chain(6, 0.8), np.zeros(6, bool), CONFIG)
        assert near.tolist() == [True, True, False, False, False]

    def test_half_alike_is_not_enough_without_one_between(self):
        rows = self.chain(3, 0.8)
        near, similarity = like_the_first(rows[[0, 2]], np.zeros(2, bool), CONFIG)
        assert similarity[0] > CONFIG.similarity / 2 and not near[0]

    def test_records_of_a_form_are_never_joined_by_a_third(self):
        rows = self.chain(3, 0.92)
        assert like_the_first(rows, np.zeros(3, bool), CONFIG)[0].tolist() == [True, True]
        assert like_the_first(rows, np.ones(3, bool), CONFIG)[0].tolist() == [True, False]


class TestContained:
    def test_an_arm_that_lies_in_a_longer_one_but_for_its_drug_stays(self, author, tmp_path):
        parts = [author.text(40) for _ in range(8)]
        drugs = [[author.text(3) for _ in parts] for _ in range(2)]
        short, long = (
            " ".join(f"{a} {b}" for a, b in zip(parts, own, strict=True)) for own in drugs
        )
        long = f"{long} {author.text(200)}"
        for source, kept in (("clinical_trials", {"s", "l"}), ("pubmed", {"l"})):
            pair = [document("s", short, source), document("l", long, source)]
            assert without_contained([pair], tmp_path / source) == kept

    def test_a_note_copied_into_the_next_one_goes(self, author, tmp_path):
        note = author.text(300)
        pair = [
            document("1", note, "clinical_notes"),
            document("2", f"{author.text(50)} {note} {author.text(100)}", "clinical_notes"),
        ]
        assert without_contained([pair], tmp_path) == {"2"}

    def test_short_records_with_one_other_word_stay(self, author, tmp_path):
        made = []
        for number in range(60):
            words = author.text(50).split()
            made.append(document(f"{number}", " ".join(words), "clinical_notes"))
            words[25] = f"{words[25]}x"
            made.append(document(f"{number}x", " ".join(words), "clinical_notes"))
        assert len(without_contained([made], tmp_path)) == len(made)


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"form_similarity": 0.9}, "alike"),
        ({"form_word_similarity": 0.95}, "alike"),
        ({"form_sources": ["patents"]}, "settings"),
    ],
)
def test_pairs_found_under_another_rule_for_forms_are_refused(author, tmp_path, changed, differs):
    find_near_duplicates([arms(author, "patents")], tmp_path)
    with pytest.raises(UserError, match=f"{differs} differs"):
        run_step(Clusters(NearDuplicateConfig(**changed), tmp_path), None, 0, 1)


def test_sketches_judged_under_another_rule_for_forms_are_refused(author, tmp_path):
    find_contained([arms(author, "patents")], tmp_path)
    with pytest.raises(UserError, match="rule differs"):
        run_step(Contained(ContainmentConfig(form_share=0.8), tmp_path), None, 0, 1)
    with pytest.raises(UserError, match="settings differs"):
        run_step(Contained(ContainmentConfig(form_sources=[]), tmp_path), None, 0, 1)


@pytest.mark.parametrize("config", [NearDuplicateConfig, ContainmentConfig])
def test_settings_out_of_range(config):
    names = [name for name in vars(config()) if name.startswith("form_") and name[-1] != "s"]
    assert names
    for name in names:
        with pytest.raises(UserError, match=name):
            config(**{name: 1.5})
