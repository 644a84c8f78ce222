import itertools

import numpy as np
import pytest

from megatron_biollm.corpus.claims import (
    CLAIM,
    GHOST,
    REASONS,
    WITHDRAWAL,
    ClaimFiles,
    file_sequence,
    identity_claims,
    losses_of,
    read_claims,
    resolve,
    save,
    text_claim,
    withdrawal_claim,
)
from megatron_biollm.corpus.document import Document

BASELINE, UPDATE, LATER = "pubmed26n0007.xml.gz", "pubmed26n1300.xml.gz", "pubmed26n1400.xml.gz"


def abstract(text="an abstract", pmid="1", **metadata):
    return Document(text, pmid, "pubmed", metadata={"pmid": pmid, **metadata})


def claim(*documents):
    """Claims of (document, file) pairs, each numbered by its place; a number stays a claim."""
    rows = []
    for number, (document, file) in enumerate(documents):
        if isinstance(document, str):
            rows.append((*withdrawal_claim(document, file), 0, WITHDRAWAL))
        else:
            rows += [(*row, 0, number) for row in identity_claims(document, file)]
    return rows


def write(folder, shard, buckets, rows):
    with ClaimFiles(folder, shard, buckets) as files:
        for row in rows:
            files.add(row[:-2], row[-1])
        files.commit()


def losers(rows):
    """{document number: reason} of the losers, the same in whatever order the claims come."""
    outcomes = [
        {int(loss["document"]): REASONS[int(loss["reason"])] for loss in losses}
        for losses in (
            resolve(np.array(list(order), CLAIM)) for order in itertools.permutations(rows)
        )
    ]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0]


def test_the_later_file_of_nlm_wins():
    rows = claim((abstract("old"), BASELINE), (abstract("new"), UPDATE), (abstract("x"), BASELINE))
    assert losers(rows) == {0: "superseded_version", 2: "superseded_version"}


def test_a_higher_version_wins_over_a_later_file():
    rows = claim((abstract("two", version=2), BASELINE), (abstract("one", version=1), UPDATE))
    assert losers(rows) == {1: "superseded_version"}


def test_without_nlm_numbers_the_revision_date_decides_and_equals_leave_one():
    rows = claim(
        (abstract("old", revised="2019-01-01"), "export.xml"),
        (abstract("new", revised="2020-01-01"), "a.xml"),
    )
    assert losers(rows) == {0: "superseded_version"}
    assert list(losers(claim((abstract(), "a.xml"), (abstract(), "b.xml"))).values()) == [
        "duplicate_record"
    ]


def test_a_withdrawal_ends_what_came_before_it_and_not_what_came_after():
    rows = claim((abstract(), BASELINE), ("1", UPDATE))
    assert losers(rows) == {0: "withdrawn"}
    rows = claim((abstract(), BASELINE), ("1", UPDATE), (abstract("again"), LATER))
    assert losers(rows) == {0: "withdrawn"}
    assert losers(claim((abstract(pmid="2"), BASELINE), ("1", UPDATE))) == {}


def test_a_full_text_replaces_its_abstract_but_not_another_full_text():
    article = Document("long text", "PMC9", "pmc", metadata={"pmcid": "PMC9", "pmid": "1"})
    manuscript = Document("other", "PMC8", "pmc", metadata={"pmcid": "PMC8", "pmid": "1"})
    rows = claim((abstract(), UPDATE), (article, "a.nxml"), (manuscript, "b.nxml"))
    assert losers(rows) == {0: "in_full_text"}


def test_the_grant_of_a_patent_stays_and_its_application_goes():
    def patent(kind, family="12345"):
        return Document(kind, kind, "patents", metadata={"family": family, "kind": kind})

    rows = claim((patent("application"), "a"), (patent("grant"), "b"), (patent("grant", "9"), "c"))
    assert losers(rows) == {0: "patent_family"}


def test_a_ghost_beats_older_versions_and_is_no_loser_itself():
    rows = claim((abstract("old"), BASELINE))
    newer = [(*row, 0, GHOST) for row in identity_claims(abstract("bad"), UPDATE)]
    assert losers(rows + newer) == {0: "superseded_version"}
    newest = [(*row, 0, 5) for row in identity_claims(abstract("good"), LATER)]
    assert losers(newer + newest) == {}


def test_equal_texts_leave_one_whatever_their_case_and_white_space():
    texts = [("pubmed", "The  Text."), ("pmc", "the text."), ("text", "the\ntext."), ("text", "no")]
    rows = [(*text_claim(Document(t, s, s)), 0, i) for i, (s, t) in enumerate(texts)]
    assert losers(rows) == {0: "exact_duplicate", 2: "exact_duplicate"}


def test_buckets_hold_each_claim_once_and_losses_come_back_by_shard(tmp_path):
    rows = [(*text_claim(Document(f"t{i % 7}", str(i), "text")), i % 3, i) for i in range(50)]
    for shard in range(3):
        write(tmp_path / "claims", shard, 4, [row for row in rows if row[-2] == shard])
    buckets = [read_claims(tmp_path / "claims", bucket) for bucket in range(4)]
    assert sum(map(len, buckets)) == 50
    for number, bucket in enumerate(buckets):
        save(tmp_path / "losses" / f"{number:04d}.npy", resolve(bucket))
    lost = [losses_of(tmp_path / "losses", shard) for shard in range(3)]
    assert sum(map(len, lost)) == 50 - 7
    assert all(document % 3 == shard for shard in range(3) for document in lost[shard])


def test_nothing_claimed_is_nothing_lost(tmp_path):
    write(tmp_path, 0, 2, [])
    assert len(resolve(read_claims(tmp_path, 1))) == 0
    assert len(resolve(read_claims(tmp_path / "nowhere", 1))) == 0


@pytest.mark.parametrize(
    ("file", "sequence"),
    [("pubmed26n1234.xml.gz", 2601234), ("medline17n0812.xml", 1700812), ("export.xml", 0)],
)
def test_files_are_ordered_as_nlm_numbers_them(file, sequence):
    assert file_sequence(file) == sequence


def test_claims_that_were_not_committed_leave_nothing(tmp_path):
    row = text_claim(Document("text", "1", "text"))
    with ClaimFiles(tmp_path, 0, 2) as files:
        for number in range(10_000):
            files.add(row, number)
        assert len(files.rows) < 10_000
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
