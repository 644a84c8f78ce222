"""Cleaning keeps what was written, takes away what was put around it, and comes to rest."""

import pickle
import random
import time
import unicodedata

import pytest

from megatron_biollm.corpus.document import Document, Section
from megatron_biollm.corpus.normalise import NormaliseConfig, Normaliser
from megatron_biollm.corpus.steps import Drop


def document(text: str, source: str = "pmc", **fields) -> Document:
    return Document(text=text, id="1", source=source, **fields)


def clean(text: str, source: str = "pmc", **settings) -> str:
    return Normaliser(NormaliseConfig(**settings))(document(text, source)).text


UNTOUCHED = [
    "Aspirin 75 mg/day, µg, 10⁶ cells, CO₂, ½ tablet, ≥ 3.5 × 10⁻³ mol·l⁻¹, 37 °C, 5′-UTR.",
    "TNF-α, IL-1β, CYP2D6*4, p53, c-Myc, HLA-B*57:01 and 5-HT₂A; Å, naïve, Sjögren’s, Ménière.",
    "mean [95% CI] 1,764 mg/24 h [1,225-2,540] to 1,334 mg/24 h [890-1,998] (range [2, 7]).",
    "1-Substituted 4-[chloropyrazolyl][1,2,4]triazolo[4,3-a]quinoxalines and [13]C-urea.",
    "Left (A), middle (B) and right (C) panels. SCALE© (SDS) results. The copyright law changed.",
    "The CP-violating asymmetry is -0.170<A(CP)(B-->K(*)gamma)<0.082 at 90% C.L., with n1<n2<n3.",
    "Trial registration: ClinicalTrials.gov NCT00850837.\nFunding: NIH grant R01-123.",
    "dose\tn\tresponse\n10 mg\t12\t3 (25%)\n20 mg\t11\t6 (55%)",
    "a dose- and time-dependent fall; short- and long-term memory",
    "Ã is a letter; São Paulo; ÂGE; â; señor; £5; “quoted” – dash… ‘a’",
]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_numbers_units_names_and_letters_stay(text):
    given = document(text)
    assert Normaliser(NormaliseConfig())(given) is given


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("e\u0301tude", "étude"),
        ("e\ufb03cient \ufb02ow", "efficient flow"),
        ("micro\u00adscope and treat\u00ad\nment", "microscope and treatment"),
        ("\ufeffzero\u200bwidth\u2060", "zerowidth"),
        ("10\u00a0mg and 5\u2009ml", "10 mg and 5 ml"),
        ("a\x00b\x07c\r\nd\re\u2028f", "abc\nd\ne\nf"),
        ("  two  blanks  \n\n\n\nnext \n", "two blanks\n\nnext"),
        ("P &lt; 0.05 &amp;amp; &#945; &gt; 1&nbsp;%", "P < 0.05 & α > 1 %"),
        ("IC<inf>50</inf> of 10<sup>-6</sup> M, 2<sup>nd</sup>", "IC50 of 10⁻⁶ M, 2nd"),
        (
            "Î²-blocker, 5 Âµg, â‰¥ 3 Â± 1, 37 Â°C, doesnâ€™t",
            "β-blocker, 5 µg, ≥ 3 ± 1, 37 °C, doesn’t",
        ),
        ("page one\n\fpage two", "page one\npage two"),
    ],
)
def test_characters_get_one_form(given, expected):
    assert clean(given) == expected


def test_joiners_stay_where_the_script_needs_them():
    assert clean("می\u200cخواهم co\u200doperate") == "می\u200cخواهم cooperate"


@pytest.mark.parametrize(
    "notice",
    [
        "© 2019 Elsevier Ltd. All rights reserved.",
        "Copyright © 2012 The Academy of Medicine. Published by Elsevier Inc. All rights reserved",
        "Copyright 1994 S. Karger AG, Basel",
        "(c) 2004 Wiley-Liss, Inc.",
        "© 2013 Kuhl et al, publisher and licensee Dove Medical Press Ltd",
        "Cancer Cytopathol 2018;126:122-8. © 2017 American Cancer Society.",
        "(ABSTRACT TRUNCATED AT 250 WORDS)",
        "This article is protected by copyright. All rights reserved.",
        "This is an Open Access article distributed under the terms of the Creative Commons "
        "Attribution License (http://creativecommons.org/licenses/by/2.0), which permits "
        "unrestricted use, provided the original work is properly cited.",
    ],
)
def test_a_notice_at_the_end_of_an_abstract_goes(notice):
    found = "Mortality fell by 12% (P < 0.05)."
    assert clean(f"{found} {notice}", source="pubmed") == found


def test_a_notice_ends_where_the_next_matter_begins():
    given = (
        "It works. © 2015 OpenClinica, LLC. Paper datasheets will be entered twice by two people."
    )
    assert clean(given) == "It works. Paper datasheets will be entered twice by two people."


@pytest.mark.parametrize(
    "line",
    [
        "Click here for additional data file.",
        "The pre-publication history for this paper can be accessed here:",
        "http://www.biomedcentral.com/1471-244X/9/1/prepub",
        "Downloaded from http://jcb.rupress.org/ on March 3, 2014",
        "Page 3 of 12",
        "*Corresponding author: Jane Roe, Department of Medicine, j.roe@example.org",
        "E-mail: j.roe@example.org",
        "Competing interests\nThe authors declare that they have no competing interests.",
        "J Pain. Author manuscript; available in PMC 2012 May 1.",
        "All authors read and approved the final manuscript.",
        "Supplementary data are available at Brain online.",
        "Received 3 May 2004; accepted 9 June 2004",
    ],
)
def test_journal_furniture_goes_from_articles_and_stays_in_notes(line):
    text = f"First finding.\n{line}\nSecond finding."
    assert clean(text) == "First finding.\nSecond finding."
    assert clean(text, source="clinical_notes") == text
    assert clean(text, furniture=False) == text


def test_running_heads_at_page_ends_go_but_repeated_lines_elsewhere_stay():
    pages = [
        f"Doctor: Okay.\nBody of page {n}.\nSmith et al.\nBMC Medicine 2010, 8:{n}"
        for n in (1, 2, 3, 4)
    ]
    cleaned = clean("\f".join(pages))
    assert "BMC Medicine" not in cleaned
    assert cleaned.count("Body of page") == 4


def test_a_word_is_joined_only_as_the_document_writes_it():
    start = "The patients were randomly assigned to "
    shown = "Later treatment and the double-blind phase."
    assert "treatment arms" in clean(f"{start}treat-\nment arms. {shown}")
    assert "double-blind arms" in clean(f"{start}double-\nblind arms. {shown}")
    for left in (f"{start}unseen-\nword arms. {shown}", f"{start}IL-\n6 arms. {shown}"):
        assert clean(left) == left


def test_lists_of_references_go_by_name_and_by_look():
    entries = "\n".join(
        f"{n}. Roe J, et al. A trial. Lancet 200{n};1:{n}0-{n}9." for n in range(1, 6)
    )
    body = "\n".join(f"Aspirin helps in the group {n} [1]." for n in range(9))
    text = f"{body}\nReferences\n{entries}"
    assert clean(text) == body
    assert clean(text, references=False) == text
    marked = document(
        "Body.\n\nRoe 2001", sections=(Section("body", 0, 5), Section("references", 7, 15))
    )
    cleaned = Normaliser(NormaliseConfig())(marked)
    assert (cleaned.text, cleaned.sections) == ("Body.", (Section("body", 0, 5),))


def test_formal_sections_go_from_articles():
    parts = [("body", "It helps."), ("authors’ contributions", "SL wrote it."), ("table", "a | b")]
    for source, names in (("pmc", ["body", "table"]), ("patents", [name for name, _ in parts])):
        given = Document.of_sections(parts, id="1", source=source)
        kept = Normaliser(NormaliseConfig())(given)
        assert [section.name for section in kept.sections] == names
    assert Normaliser(NormaliseConfig(formal_sections=[]))(given) is given


def test_what_follows_the_heading_stays_if_it_is_no_list_of_references():
    text = (
        "Background.\n" * 9
        + "References\nThe reference range of sodium is 135-145.\nIt was used.\nOften."
    )
    assert clean(text) == text


def test_citation_numbers_go_on_demand_and_only_from_articles():
    text = (
        "Pain is common [1], lasting [2,3], costly [4-6], rare [7], [8] and odd [9]. "
        "Age [2, 7]. Dose (range [3, 9])."
    )
    first = "Pain is common, lasting, costly, rare and odd. Age [2, 7]."
    assert clean(text, citations=True).startswith(first)
    assert "range [3, 9]" in clean(text, citations=True)
    assert clean(text) == text
    assert clean(text, source="patents", citations=True) == text


def test_section_marks_move_along():
    given = Document.of_sections(
        [
            ("title", "E\ufb00ect of \u00ad aspirin"),
            ("abstract", "It helps.  © 2019 Elsevier Ltd."),
            ("body", "β  x"),
        ],
        id="1",
        source="pubmed",
    )
    cleaned = Normaliser(NormaliseConfig())(given)
    parts = {s.name: cleaned.text[s.start : s.end] for s in cleaned.sections}
    assert parts == {"title": "Effect of aspirin", "abstract": "It helps.", "body": "β x"}


def test_a_document_of_furniture_alone_is_dropped():
    assert Normaliser(NormaliseConfig())(document("© 2019 Elsevier Ltd.")) == Drop(
        "only_boilerplate", "© 2019 Elsevier Ltd."
    )


def test_edits_are_counted_by_rule():
    normaliser = pickle.loads(pickle.dumps(Normaliser(NormaliseConfig())))
    normaliser(document("e\ufb03cient  \ufb02ow"))
    normaliser(document("as it is"))
    assert normaliser.tally == {"ligatures": 2, "white_space": 1, "documents_changed": 1}


PIECES = [
    *"ab 1.\n\t\f-[],;é&<>",
    *(
        "\u0301",
        "\u00ad",
        "\u200b",
        "\x00",
        "\x93",
        "\u00a0",
        "ﬁ",
        "Ã",
        "©",
        "â€™",
        "Î²",
        "Å",
        "&amp;",
        "lt;",
        "<sup>",
    ),
    *(
        "</sup>",
        "6",
        "\r\n",
        "Click here for file",
        "[1]",
        " References\n",
        "Copyright 2019 X. ",
        "Published by Elsevier. ",
    ),
    *(
        "(c) 2001 Y.",
        "All rights reserved.",
        "treat-\nment ",
        "treatment ",
        "Page 1 of 2",
        "et al 2001;1:2\n",
        "  ",
    ),
]


def test_cleaning_the_clean_changes_nothing():
    chance = random.Random(0)
    for _ in range(3000):
        text = "".join(chance.choices(PIECES, k=chance.randint(1, 40)))
        once = Normaliser(NormaliseConfig(citations=True))(document(text))
        if isinstance(once, Drop):
            continue
        assert Normaliser(NormaliseConfig(citations=True))(once) == once, repr(text)
        assert unicodedata.is_normalized("NFC", once.text)


@pytest.mark.parametrize(
    "piece",
    [
        " ",
        "a-\n",
        "©",
        "[1,",
        "[1] ",
        "(",
        "<sup>",
        "&amp;",
        "\n",
        "Ã",
        "â€",
        "\f",
        "E-mail: ",
        "Copyright © ",
        "A. ",
        "\u0301",
    ],
)
def test_no_rule_runs_away_on_a_long_document(piece):
    text = "Start " + piece * (400_000 // len(piece)) + " end"
    begun = time.process_time()
    Normaliser(NormaliseConfig(citations=True))(document(text))
    assert time.process_time() - begun < 4
