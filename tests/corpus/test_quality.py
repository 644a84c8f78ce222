"""Rubbish goes, each kind for its reason; tables, lists and sequences that mean something stay."""

import base64
import pickle
import random
import time

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.quality import QualityConfig, QualityFilter
from megatron_biollm.corpus.steps import Drop

PROSE = (
    "Patients with chronic heart failure were randomly assigned to receive either the drug or a "
    "placebo for twelve months. The primary outcome was death from any cause, and it occurred in "
    "12.4% of the treated group and 15.1% of the controls (hazard ratio, 0.81; 95% CI, 0.70-0.94)."
)

WORTH_KEEPING = {
    "prose": PROSE,
    "dose table": "Drug | Dose | Route | Interval\n"
    + "\n".join(
        f"{name} | {dose} mg | {route} | q{hours}h"
        for name, dose, route, hours in (
            ("Amoxicillin", 500, "PO", 8),
            ("Ceftriaxone", 1000, "IV", 24),
            ("Vancomycin", 15, "IV", 12),
            ("Gentamicin", 5, "IV", 24),
            ("Metronidazole", 500, "PO", 8),
        )
    ),
    "gene list": "BRCA1 BRCA2 TP53 PTEN CDH1 STK11 PALB2 ATM CHEK2 NBN BARD1 RAD51C RAD51D MLH1 "
    "MSH2 MSH6 PMS2 EPCAM APC MUTYH BMPR1A SMAD4 CDKN2A CDK4 MITF BAP1 VHL FH FLCN SDHA SDHB SDHC",
    "reference ranges": "Sodium: 135-145 mmol/L\nPotassium: 3.5-5.1 mmol/L\nGlucose: 70-99 mg/dL\n"
    "pH: 7.35-7.45\npCO2: 35-45 mmHg\nHb: 13.5-17.5 g/dL\nWBC: 4.5-11.0 x10^9/L\nPLT: 150-450",
    "figures": "Group | n | Mean | SD | P\n"
    + "\n".join(f"A{n} | {n}4 | 1{n}.{n} | 0.{n}1 | 0.0{n}" for n in range(1, 9)),
    "SMILES": f"{PROSE} Its structure is CC(=O)OC1=CC=CC=C1C(=O)O, that of the second "
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C and of the third "
    "CC(C)(C)NCC(O)C1=CC(CO)=C(O)C=C1, all of which were made here.",
    "sequence in a paragraph": f"{PROSE} The alpha chain begins with the sequence "
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSA "
    "and the primers were ATGGTGCTGTCTCCTGCCGACAAGACC and TTAACGGTATTTGGAGGTCAGCACGGTG.",
    "short conclusive abstract": "Aspirin halves colds.\n\nIt does so in adults.",
    "eligibility": "Inclusion Criteria:\n\n"
    + "\n".join(f"* Age ≥ {n}\n* ECOG 0-{n}\n* No prior therapy {n}" for n in range(1, 15)),
    "chemical names": "N-(4-hydroxyphenyl)acetamide, 2-(4-isobutylphenyl)propanoic acid "
    "and 1,3,7-trimethyl-3,7-dihydro-1H-purine-2,6-dione were weighed, dissolved and measured by "
    "HPLC-MS/MS at 37 °C in 10 mM phosphate-buffered saline as described before.",
    "laboratory panel": "\n".join(
        f"2019-0{n}-11: Erythrocytes [#/volume] in Blood by Automated count: 4.{n} 10*6/uL"
        for n in range(1, 9)
    ),
    "dialogue": "Doctor: Do you smoke?\nPatient: No.\nDoctor: Do you drink?\nPatient: No.\n"
    "Doctor: Any allergies?\nPatient: No, I don't.\nDoctor: Okay.\nPatient: Okay.",
    "correction as a matter": f"Correction of scoliosis by casting. {PROSE}",
    "retraction as a matter": f"Retraction of the eyelid after surgery. {PROSE}",
    "claims": "\n".join(
        f"{n}. The method of claim {n - 1}, wherein the compound of claim 1 is given at {n} mg/kg."
        for n in range(2, 30)
    ),
}

_CHANCE = random.Random(0)
_BYTES = base64.encodebytes(_CHANCE.randbytes(3000)).decode()

RUBBISH = {
    "lorem_ipsum": "Lorem ipsum dolor sit amet, consetetur sadipscing elitr.",
    "no_content": "No abstract available.",
    "too_short": "Madness",
    "encoded": f"Attachment: {_BYTES}",
    "markup": "<div><p>Home</p><ul><li>One</li><li>Two</li></ul></div> " * 25,
    "sequence_listing": "Met Val Leu Ser Pro Ala Asp Lys Thr Asn Val Lys Ala Ala Trp Gly Lys Val "
    "Gly Ala His Ala Gly Glu Tyr Gly Ala Glu Ala Leu Glu Arg Met Phe",
    "few_letters": "12 34 5.6 7/8 -- 99.1 33 2 1 0 5 5 6 7 1.1 2.2 3.3 4.4 5.5 6.6 7.7 8.8 9.9 N",
    "word_length": "supercalifragilisticexpialidociousness " * 25,
    "scattered_letters": "T h e p a t i e n t w a s w e l l a n d w e n t h o m e o n d a y 3",
    "broken_characters": "Tlie pat1ents w#re tr~ated w|th a~pirin, wh*ch imp^oved th~ir s{rvival "
    "and r#duced mor~ality at on¬ year in the tr£ated gro|p (see tab1es)",
    "gibberish": "xkcd qwrt zxcv bnmp sdfg hjkl wrtp lkjh gfds trwq mnbv cxzl kjhg plmk nbvc dfgh "
    "rtwp zxcv bnmk ghjk lkmn",
    "web_menu": "Skip to main content\nHome\nAbout us\nContact us\nLogin\nSearch\nPrivacy policy\n"
    "Research in our department is broad and old.\nIt began here in the year of the great plague.",
    "repetition": "This page needs a browser that is newer than yours, please update it.\n" * 40,
    "notice": "Correction to: Stroke Prevention Strategies in the Developing World.",
    "retracted": f"RETRACTED: A rabbit model. {PROSE}",
    "too_long": PROSE * 80_000,
}


def judged(text: str, source: str = "pubmed", **settings) -> Document | Drop:
    fields = {name: settings.pop(name) for name in ("licence", "metadata") if name in settings}
    document = Document(text=text, id="1", source=source, **fields)
    return QualityFilter(QualityConfig(**settings))(document)


@pytest.mark.parametrize("kind", WORTH_KEEPING)
def test_what_is_worth_keeping_is_kept_untouched(kind):
    given = Document(text=WORTH_KEEPING[kind], id="1", source="clinical_notes")
    assert QualityFilter(QualityConfig())(given) is given


@pytest.mark.parametrize("reason", RUBBISH)
def test_rubbish_is_dropped_for_its_reason(reason):
    dropped = judged(RUBBISH[reason])
    assert isinstance(dropped, Drop), dropped.text[:200]
    assert dropped.reason == reason


def test_mojibake_that_could_not_be_mended_is_dropped():
    text = "Ã\u0083Â¤ hÃ¶he Ã¼ber Ã¤ndern Ã¶ffnen grÃ¶Ãe fÃ¼r kÃ¶nnen mÃ¼ssen wÃ¤hrend "
    assert judged(text * 3).reason == "broken_characters"


def test_each_source_has_its_fewest_words():
    for source, kept in (("clinical_notes", True), ("pubmed", True), ("pmc", False)):
        outcome = judged("The patient was well and went home.", source)
        assert isinstance(outcome, Document) is kept
    assert judged("He was well.", min_words={"pubmed": 4}).reason == "too_short"


def test_retracted_articles_and_notices_can_be_kept():
    retracted = {"retracted": True}
    assert judged(PROSE, metadata=retracted) == Drop("retracted")
    assert isinstance(judged(PROSE, metadata=retracted, retracted="keep"), Document)
    assert judged(PROSE, "pmc", metadata={"article_type": "correction"}).reason == "notice"
    assert isinstance(judged(RUBBISH["notice"], notices="keep"), Document)


@pytest.mark.parametrize(
    ("licence", "unknown", "kept"),
    [
        ("CC BY 4.0", "keep", True),
        ("CC BY-NC 4.0", "keep", False),
        ("CC0 1.0", "keep", True),
        (None, "keep", True),
        (None, "drop", False),
        ("© 2019 Elsevier", "keep", False),
    ],
)
def test_an_allow_list_of_licences(licence, unknown, kept):
    outcome = judged(PROSE, licence=licence, licences=["CC BY 4.0", "cc0"], unknown_licence=unknown)
    assert isinstance(outcome, Document) is kept
    assert kept or outcome.reason == "licence"


def test_a_limit_is_a_setting():
    assert judged(WORTH_KEEPING["figures"], min_letters=0.9).reason == "few_letters"
    assert judged(PROSE, max_characters=100).reason == "too_long"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"retracted": "maybe"}, "retracted is 'maybe'"), ({"max_broken": -1.0}, "max_broken is -1")],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        QualityConfig(**settings)


def test_the_filter_travels_to_workers():
    assert pickle.loads(pickle.dumps(QualityFilter(QualityConfig())))(
        Document(text="Madness", id="1", source="pubmed")
    ) == Drop("too_short", "1 words, fewest 5")


@pytest.mark.parametrize("piece", ["a", "a ", "<", "<a ", "~a", "Ã", "Ala ", "1ab", "bcdf ", "\n"])
def test_no_measure_runs_away_on_a_long_document(piece):
    text = PROSE + piece * (1_000_000 // len(piece)) + PROSE
    begun = time.process_time()
    judged(text)
    assert time.process_time() - begun < 5
