import io
import re
from collections import Counter
from pathlib import Path

import pytest
from lxml import etree

from megatron_biollm.corpus.open import open_streams
from megatron_biollm.corpus.read import read_file
from megatron_biollm.corpus.readers.pmc import FORMATS, read_pmc
from megatron_biollm.corpus.readers.xml import SAFE, local_name
from megatron_biollm.corpus.report import FileReport

PMC = Path(__file__).parents[2].parent / "shared" / "data" / "corpus" / "pmc"
needs_pmc = pytest.mark.skipif(
    not PMC.is_dir(), reason="no sample of real PMC files beside the checkout"
)
FRONT = (
    "<front><journal-meta><journal-title>Trials</journal-title></journal-meta><article-meta>"
    '<article-id pub-id-type="pmid">17</article-id><article-id pub-id-type="pmc">99</article-id>'
    '<article-id pub-id-type="doi">10.1/ABC</article-id>'
    "<title-group><article-title>A <italic>title</italic></article-title></title-group>"
    '<pub-date pub-type="pmc-release"><year>2001</year></pub-date>'
    '<pub-date pub-type="ppub"><month>3</month><year>2000</year></pub-date>'
    "</article-meta></front>"
)


def read(xml, name="a.nxml"):
    report = FileReport(name)
    stream = io.BytesIO(xml if isinstance(xml, bytes) else xml.encode())
    return list(read_pmc(stream, name, report)), report


def of_body(body, front="", rest=""):
    documents, _ = read(f"<article>{front}<body>{body}</body>{rest}</article>")
    return documents[0]


def parts(document):
    return [(s.name, document.text[s.start : s.end]) for s in document.sections]


def test_the_front_gives_identifiers_journal_title_and_date():
    document = of_body("<p>Text.</p>", FRONT)
    assert parts(document) == [("title", "A title"), ("body", "Text.")]
    assert (document.id, document.source, document.date) == ("PMC99", "pmc", "2000-03")
    assert document.metadata == {
        "pmid": "17", "pmcid": "PMC99", "doi": "10.1/abc", "journal": "Trials"
    }  # fmt: skip


def test_an_article_without_identifiers_is_named_after_its_file():
    articles = "<article><body><p>x</p></body></article>" * 2
    documents, _ = read(f"<pmc-articleset>{articles}</pmc-articleset>", "set.xml")
    assert [d.id for d in documents] == ["set.xml", "set.xml#2"]


def test_namespaces_do_not_matter():
    xml = '<j:article xmlns:j="urn:jats"><j:body><j:p>Text.</j:p></j:body></j:article>'
    assert read(xml)[0][0].text == "Text."
    assert FORMATS[0].matches(xml.encode(), "a.xml")


def test_a_structured_abstract_reads_as_pubmeds_does():
    abstract = (
        "<abstract><sec><title>Methods:</title><p>We measured.</p></sec>"
        "<sec><title>Results</title><p>It fell.</p><p>Then it rose.</p></sec></abstract>"
        '<abstract abstract-type="plain-language-summary"><p>In short.</p></abstract>'
        '<trans-abstract xml:lang="fr"><p>Nous avons.</p></trans-abstract>'
    )
    document = of_body("<p>Text.</p>", f"<front><article-meta>{abstract}</article-meta></front>")
    assert parts(document) == [
        ("methods", "Methods: We measured."),
        ("results", "Results: It fell.\n\nThen it rose."),
        ("plain language summary", "In short."),
        ("body", "Text."),
    ]


def test_sections_stand_under_their_titles_and_are_named_by_their_role():
    body = (
        "<sec><label>2.</label><title>Patients and methods</title><p>One.</p>"
        "<sec><title>Assay</title><p>Two.</p></sec></sec>"
        '<sec sec-type="intro"><p>Three.</p></sec>'
        "<sec><title>Trial status</title><p>Four.</p></sec>"
    )
    assert parts(of_body(body)) == [
        ("methods", "2. Patients and methods\n\nOne.\n\nAssay\n\nTwo."),
        ("intro", "Three."),
        ("trial status", "Trial status\n\nFour."),
    ]


def test_tables_are_lines_with_caption_and_footnotes_after_their_paragraph():
    table = (
        '<table-wrap id="t"><label>Table 1</label><caption><title>Doses</title><p>In mg.</p>'
        "</caption><alternatives><graphic/><table><tr><th>Drug</th><th>Dose</th></tr><tr>"
        '<td>A<sup>a</sup></td><td>5 × 10<sup>3</sup> <xref ref-type="bibr">[4]</xref></td></tr>'
        "</table></alternatives><table-wrap-foot><fn><label>a</label><p>Oral.</p></fn>"
        "</table-wrap-foot></table-wrap>"
    )
    assert parts(of_body(f"<p>Before {table}after.</p><p>Next.</p>")) == [
        ("body", "Before after."),
        ("table", "Table 1. Doses. In mg.\nDrug | Dose\nAa | 5 × 10^3\na Oral."),
        ("body", "Next."),
    ]


def test_figures_give_their_captions_and_nothing_else():
    figure = (
        "<fig><object-id>10.1/x</object-id><label>Figure 1</label><caption><p>A curve</p></caption>"
        "<graphic><alt-text>png</alt-text></graphic><permissions><p>(c)</p></permissions></fig>"
    )
    file = (
        "<supplementary-material><label>S1</label><caption><p>Raw data.</p></caption><media>"
        "<caption><p>Click here for additional data file.</p></caption></media>"
        "</supplementary-material>"
    )
    assert parts(of_body(f"<sec><p>One.</p>{figure}<p>Two.</p>{file}</sec>")) == [
        ("body", "One."),
        ("caption", "Figure 1. A curve."),
        ("body", "Two."),
        ("caption", "S1. Raw data."),
    ]


def test_floating_figures_at_the_end_are_kept():
    floats = "<floats-group><fig><caption><p>A curve.</p></caption></fig></floats-group>"
    assert parts(of_body("<p>One.</p>", rest=floats))[1] == ("caption", "A curve.")


def test_lists_definitions_quotes_and_boxes_keep_their_lines():
    body = (
        '<p>Take<list list-type="order"><list-item><p>one</p></list-item><list-item><p>two</p>'
        "<list><list-item><p>inner</p></list-item></list></list-item></list>and rest.</p>"
        "<list><list-item><label>•</label><p>x</p></list-item></list>"
        "<def-list><def-item><term>BP</term><def><p>blood pressure</p></def></def-item></def-list>"
        "<boxed-text><caption><title>Key points</title></caption><p>Point.</p></boxed-text>"
        "<p>So<disp-quote><p>Quoted.</p></disp-quote></p><preformat>a  b\n c</preformat>"
    )
    assert parts(of_body(body)) == [
        (
            "body",
            "Take\n\n1. one\n2. two\n  - inner\n\nand rest.\n\n• x\n\nBP: blood pressure",
        ),
        ("box", "Key points\n\nPoint."),
        ("body", "So\n\nQuoted.\n\na  b\n c"),
    ]


def test_formulas_stand_in_their_sentence_once():
    formula = (
        "<disp-formula><label>(1)</label><alternatives><tex-math>$$a=b$$</tex-math>"
        "<graphic/><math><mi>a</mi></math></alternatives></disp-formula>"
    )
    assert of_body(f"<p>Then{formula}holds.</p>").text == "Then (1) $a=b$ holds."


def bibr(number):
    return f'<xref ref-type="bibr" rid="B">{number}</xref>'


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"shown [{bibr(1)}].", "shown."),
        (f"shown [{bibr(1)}, {bibr(3)}–{bibr(5)}] and", "shown and"),
        (f"shown<sup>{bibr(1)},{bibr(2)}</sup>. Then", "shown. Then"),
        (f"shown.<sup>{bibr('[1]')}</sup> Then", "shown. Then"),
        (f"shown {bibr('[1]')} and", "shown and"),
        (
            f"shown{bibr('<sup>1</sup>')}<sup>,</sup>{bibr('<sup>2</sup>')} and",
            "shown and",
        ),
        (f"shown {bibr('[6]')}, {bibr('[7]')}, have", "shown, have"),
        (f"shown {bibr('[6]')}–{bibr('[9]')} and {bibr('[11]')} by", "shown by"),
        (f"low (see also [{bibr(5)}]).", "low."),
        (f"by Powell et al. [{bibr(5)}].", "by Powell et al."),
        ("an F[1,12] of 8", "an F[1,12] of 8"),
        (f"Smith{bibr(4)} said", "Smith said"),
        (f"(see ref. {bibr(12)} and text)", "(see ref. 12 and text)"),
        (f"by {bibr('Smith et al., 2005')}; so", "by Smith et al., 2005; so"),
        (f"Smith ({bibr('2005a')})", "Smith (2005a)"),
        ('Fig. <xref ref-type="fig">1</xref>', "Fig. 1"),
        ("Na<sup>+</sup>, Cl<sup>-</sup>", "Na+, Cl-"),
    ],
)
def test_numbers_of_references_go_and_what_a_sentence_needs_stays(given, expected):
    assert of_body(f"<p>{given}</p>").text == expected


def test_references_and_formalities_go_and_appendices_stay():
    back = (
        "<back><ack><p>Thanks.</p></ack><sec><title>Competing interests</title><p>None.</p></sec>"
        "<sec><title>Figures and tables</title><p>Kept.</p></sec><app-group><app><title>Appendix 1"
        "</title><p>More.</p></app></app-group><glossary><title>Abbreviations</title><def-list>"
        "<def-item><term>BP</term><def><p>blood pressure</p></def></def-item></def-list></glossary>"
        '<fn-group><fn id="f1"><p>Meant.</p></fn><fn id="f2"><p>Not meant.</p></fn></fn-group>'
        "<ref-list><ref><mixed-citation>Smith 1999</mixed-citation></ref></ref-list></back>"
    )
    assert parts(of_body('<p>One<xref ref-type="fn" rid="f1">*</xref>.</p>', rest=back)) == [
        ("body", "One*."),
        ("appendix", "Figures and tables\n\nKept.\n\nAppendix 1\n\nMore."),
        ("abbreviations", "Abbreviations\n\nBP: blood pressure"),
        ("footnotes", "Meant."),
    ]


def test_articles_inside_the_article_follow_it_and_translations_do_not():
    stub = "<front-stub><title-group><article-title>{}</article-title></title-group></front-stub>"
    rest = (
        f'<sub-article article-type="decision-letter">{stub.format("Letter")}<body><sec><title>'
        "Methods</title><p>Good.</p></sec></body></sub-article>"
        f'<sub-article article-type="translation">{stub.format("Titre")}</sub-article>'
        f"<response>{stub.format('Answer')}</response>"
    )
    assert parts(of_body("<p>One.</p>", rest=rest)) == [
        ("body", "One."),
        ("decision letter", "Letter\n\nMethods\n\nGood."),
        ("article", "Answer"),
    ]


def licensed(permissions):
    meta = f"<front><article-meta>{permissions}</article-meta></front>"
    xml = (
        f'<article xmlns:xlink="http://www.w3.org/1999/xlink">{meta}<body><p>x</p></body></article>'
    )
    return read(xml)[0][0].licence


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ('<license xlink:href="http://creativecommons.org/licenses/by-nc/3.0/"/>', "CC BY-NC 3.0"),
        (
            '<license><ext-link xlink:href="https://creativecommons.org/publicdomain/zero/1.0/">x'
            "</ext-link></license>",
            "CC0 1.0",
        ),
        (
            '<license><license_ref xmlns="http://www.niso.org/schemas/ali/1.0/">'
            "https://creativecommons.org/licenses/by/4.0/</license_ref></license>",
            "CC BY 4.0",
        ),
        ("<license><p>Ask   us first.</p></license>", "Ask us first."),
    ],
)
def test_a_licence_has_its_short_name_where_one_is_known(licence, expected):
    assert licensed(f"<permissions>{licence}</permissions>") == expected


def test_the_licence_of_old_articles_and_copyright_lines_count():
    assert licensed("<copyright-statement>© 1999 A</copyright-statement>") == "© 1999 A"
    assert licensed("") is None


def test_the_language_is_english_unless_the_article_says_otherwise():
    assert of_body("<p>x</p>").language == "en"
    assert read('<article xml:lang="de-AT"><body><p>x</p></body></article>')[0][0].language == "de"


def test_retracted_articles_are_marked():
    note = '<related-article related-article-type="retraction-forward"/>'
    document = of_body("<p>x</p>", f"<front><article-meta>{note}</article-meta></front>")
    assert document.metadata == {"retracted": True}


def test_articles_before_a_break_are_kept_and_one_without_text_is_counted():
    xml = "<pmc-articleset><article><front/></article><article><body><p>1</p></body></article><art"
    documents, report = read(xml)
    assert [d.text for d in documents] == ["1"]
    assert report.dropped == {"no_text": 1}
    assert report.broken and "read 2 articles before it" in report.faults[0].reason


def test_nesting_without_bound_costs_one_article():
    deep = "<sec>" * 1900 + "<p>x</p>" + "</sec>" * 1900
    article = "<article><body><p>1</p></body></article>"
    documents, report = read(f"<s><article><body>{deep}</body></article>{article}</s>")
    assert [d.text for d in documents] == ["1"]
    assert [f.position for f in report.faults] == ["article 1"]


@pytest.mark.parametrize(
    ("head", "taken"),
    [
        (b'<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD" "a.dtd"><article>', True),
        (b"<OAI-PMH><record><article>", True),
        (b"<OAI-PMH><record><dc>", False),
        (b"<PubmedArticleSet><PubmedArticle>", False),
    ],
)
def test_articles_are_known_by_their_root(head, taken):
    assert FORMATS[0].matches(head, "x.xml") is taken


# What the comparison with plain lxml leaves out, and why.
BY_RULE = {
    "object-id": "identifiers", "permissions": "permissions", "alt-text": "alternatives",
    "long-desc": "alternatives", "tex-math": "one form of a formula",
}  # fmt: skip
# White space, and what stands around citations.
SEPARATORS = re.compile(r"[\s\[\](),;:.–—−‒\u2061-]+")


def rule(path, text):
    """Why this text of the body need not be in the document; None for what must be."""
    names = [local_name(element) for element in path]
    for name in names:
        if name in BY_RULE:
            return BY_RULE[name]
    if "math" in names and "alternatives" in names:
        return "one form of a formula"
    for element in path:
        is_citation = local_name(element) == "xref" and element.get("ref-type") in ("bibr", "ref")
        if is_citation and not re.search(r"[^\W\d]{2}", "".join(element.itertext())):
            return "citations"
    return "furniture" if text.strip().startswith("Click here for additional data") else None


def texts(element, path=()):
    path += (element,)
    if element.text:
        yield element.text, path
    for child in element:
        yield from texts(child, path)
        if child.tail:
            yield child.tail, path


def missing(body, text):
    """Characters of the body's text, those left out by each rule, and those not found in order.

    A short stretch must follow the one before it within some thousand characters (a table stands
    behind its paragraph), a long one anywhere.
    """
    ours, at, counts = SEPARATORS.sub("", text), 0, Counter()
    for given, path in texts(body):
        reason = rule(path, given)
        bare = SEPARATORS.sub("", given)
        counts[reason or "all"] += len(bare)
        is_long = len(bare) > 15
        found = -1 if reason else ours.find(bare, at, None if is_long else at + 4000)
        if found >= 0:
            at = found + len(bare)
        elif not reason and not (is_long and bare in ours):
            near = ours[max(0, at - 20_000) : at + 20_000]
            words = (SEPARATORS.sub("", word) for word in given.split())
            counts["missing"] += sum(len(word) for word in words if word not in near)
    return counts


def coverage(data, name):
    """Counts of `missing` for one article; none where it has no body or no document."""
    root = etree.fromstring(data, etree.XMLParser(**SAFE))
    documents, _ = read(data, name)
    body = next((child for child in root if local_name(child) == "body"), None)
    return missing(body, documents[0].text) if documents and body is not None else Counter()


def test_the_comparison_sees_a_lost_cell_and_a_lost_paragraph():
    body = "<p>One small step.</p><table><tr><td>Drug</td><td>7.25</td></tr></table><p>End.</p>"
    root = etree.fromstring(f"<body>{body}</body>")
    text = of_body(body).text
    assert missing(root, text)["missing"] == 0
    assert missing(root, text.replace("7.25", "7.26"))["missing"] == len("725")
    assert missing(root, text.replace("One small", ""))["missing"] == len("Onesmall")


@needs_pmc
@pytest.mark.parametrize("path", sorted(PMC.glob("*")), ids=lambda path: path.name)
def test_no_text_of_a_real_body_is_lost_but_by_a_named_rule(path):
    for number, (name, stream) in enumerate(open_streams(path, FileReport(path.name))):
        # Seven hundred articles of one package: every tenth is enough for each run of the tests.
        if number < 30 or number % 10 == 0:
            counts = coverage(stream.read(), name)
            assert counts["missing"] <= 0.01 * counts["all"], (name, counts)


def readme_counts():
    readme = PMC.parent / "README.md"
    if not readme.is_file():
        return {}
    rows = re.findall(r"^\| pmc/(\S+) \|(.*)", readme.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: int(rest.split("|")[-6]) for name, rest in rows}


@needs_pmc
@pytest.mark.parametrize(("name", "count"), readme_counts().items())
def test_every_article_of_a_real_file_is_a_document_or_a_named_drop(name, count):
    report = FileReport(name)
    documents = list(read_file(PMC / name, report))
    assert len(documents) + report.dropped["no_text"] == count
    assert report.fault_count == 0
    # One article of the samples is an accepted manuscript that has not appeared.
    assert sum(document.date is None for document in documents) <= 1
    assert all(document.language for document in documents)
