"""A trial run of filters tells what would be dropped, from where and why."""

from megatron_biollm.corpus.clean.trial import to_text, try_processors
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.language import LanguageConfig, LanguageFilter
from megatron_biollm.corpus.normalise import NormaliseConfig, Normaliser
from megatron_biollm.corpus.quality import QualityConfig, QualityFilter


def test_drops_are_counted_by_source_and_shown():
    texts = [
        ("pubmed", "The patients were treated with e\ufb03cient drugs and it was good."),
        ("pubmed", "Madness"),
        ("pmc", "The report was short."),
        ("pmc", "Die Patienten wurden mit dem Mittel behandelt und nach einem Jahr entlassen."),
    ]
    documents = (
        Document(text=text, id=f"{n}", source=source) for n, (source, text) in enumerate(texts)
    )
    flows = try_processors(
        documents,
        (
            Normaliser(NormaliseConfig()),
            LanguageFilter(LanguageConfig()),
            QualityFilter(QualityConfig()),
        ),
    )
    assert [flow.came.total() for flow in flows] == [4, 4, 3]
    assert flows[1].dropped == {"pmc": {"language": 1}}
    assert flows[2].dropped == {"pubmed": {"too_short": 1}, "pmc": {"too_short": 1}}
    text = to_text(flows)
    assert "pmc: 1 language (50.00 % of 2)" in text
    assert "1 [1 words, fewest 5] 'Madness'" in text
    assert "1 ligatures" in text
