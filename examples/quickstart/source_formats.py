"""Studies in the file formats of the five sources, with no more of each format than is needed.

Numbers (PMID, PMCID, NCT number, patent number) begin with 99, beyond those that are in use.
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from invented_studies import GRAMMAR, Study, make_patient

PUBMED_SET = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE PubmedArticleSet SYSTEM "http://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">
<PubmedArticleSet>
{}
</PubmedArticleSet>
"""
PUBMED_RECORD = """<PubmedArticle>
<MedlineCitation Status="MEDLINE" Owner="NLM"><PMID Version="{version}">{pmid}</PMID>
<Article PubModel="Print"><Journal><JournalIssue CitedMedium="Print"><PubDate><Year>{year}</Year>
<Month>{month}</Month><Day>{day}</Day></PubDate></JournalIssue><Title>Sample Journal</Title>
</Journal><ArticleTitle>{title}</ArticleTitle><Abstract>{abstract}</Abstract>
<Language>eng</Language><PublicationTypeList>
<PublicationType UI="{type_number}">{type}</PublicationType></PublicationTypeList></Article>
</MedlineCitation></PubmedArticle>"""
ARTICLE_TYPES = {False: ("D016428", "Journal Article"), True: ("D016441", "Retracted Publication")}

JATS = """<?xml version="1.0" encoding="UTF-8"?>
<article xmlns:xlink="http://www.w3.org/1999/xlink" article-type="research-article" xml:lang="en">
<front><journal-meta><journal-title-group><journal-title>Sample Journal</journal-title>
</journal-title-group></journal-meta>
<article-meta><article-id pub-id-type="pmc">{pmcid}</article-id>{pmid}
<title-group><article-title>{title}</article-title></title-group>
<pub-date pub-type="epub"><day>{day}</day><month>{month}</month><year>{year}</year></pub-date>
<permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>Open
access under CC BY 4.0.</license-p></license></permissions>
<abstract>{abstract}</abstract></article-meta></front>
<body>{body}</body>
<back><ack><p>We thank all participants.</p></ack>
<ref-list><ref id="r1"><mixed-citation>Sample J. {year};1:1-9.</mixed-citation></ref></ref-list>
</back></article>
"""
JATS_TABLE = """<table-wrap id="t1"><label>Table 1</label><caption><p>Characteristics of the
participants.</p></caption><table><thead><tr><th>Characteristic</th><th>{drug}</th><th>{control}
</th></tr></thead><tbody><tr><td>Age, years</td><td>{age}</td><td>{age}</td></tr>
<tr><td>Women, %</td><td>{women}</td><td>{women}</td></tr>
<tr><td>Change in {measure}, {unit}</td><td>{effect}</td><td>{small}</td></tr></tbody></table>
</table-wrap>"""

PATENT = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE us-patent-grant SYSTEM "us-patent-grant-v47-2022-02-17.dtd" [ ]>
<us-patent-grant lang="EN" file="US{number}.XML" country="US"><us-bibliographic-data-grant>
<publication-reference><document-id><country>US</country><doc-number>{number}</doc-number>
<kind>B2</kind><date>{date}</date></document-id></publication-reference>
<application-reference appl-type="utility"><document-id><country>US</country>
<doc-number>{application}</doc-number></document-id></application-reference>
<classifications-ipcr><classification-ipcr><section>{ipcr[0]}</section><class>{ipcr[1]}{ipcr[2]}
</class><subclass>{ipcr[3]}</subclass><main-group>{group}</main-group>
<subgroup>{subgroup}</subgroup></classification-ipcr></classifications-ipcr>
<invention-title>{title}</invention-title></us-bibliographic-data-grant>
<abstract><p>{abstract}</p></abstract><description>{description}</description>
<claims>{claims}</claims></us-patent-grant>
"""


def pubmed_set(records: list[str], withdrawn: list[int]) -> str:
    """A baseline or update file; `withdrawn` are PMIDs that NLM has deleted."""
    gone = "".join(f"<PMID Version='1'>{pmid}</PMID>" for pmid in withdrawn)
    deletion = [f"<DeleteCitation>{gone}</DeleteCitation>"] if gone else []
    return PUBMED_SET.format("\n".join(records + deletion))


def pubmed_record(study: Study, pmid: int, version: int = 1, is_retracted: bool = False) -> str:
    type_number, kind = ARTICLE_TYPES[is_retracted]
    parts = (
        f"<AbstractText{_label(label)}>{escape(text)}</AbstractText>"
        for label, text in study.abstract
    )
    return PUBMED_RECORD.format(
        pmid=pmid,
        version=version,
        title=escape(study.title),
        abstract="".join(parts),
        type_number=type_number,
        type=kind,
        **_date(study),
    )


def jats_article(study: Study, pmcid: str, pmid: int | None) -> str:
    """A full text of the study, with a table and references."""
    parts = (
        f"<sec><title>{label.capitalize()}</title><p>{escape(text)}</p></sec>"
        if label
        else f"<p>{escape(text)}</p>"
        for label, text in study.abstract
    )
    return JATS.format(
        pmcid=pmcid.removeprefix("PMC"),
        pmid=f'<article-id pub-id-type="pmid">{pmid}</article-id>' if pmid else "",
        title=escape(study.title.rstrip(".")),
        abstract="".join(parts),
        body="".join(_jats_section(study, title) for title in GRAMMAR["article"]),
        **_date(study),
    )


def trial(study: Study, nct_id: str) -> dict[str, Any]:
    """A study as version 2 of the ClinicalTrials.gov API gives it."""
    tell, text = study.tell, GRAMMAR["registration"]
    arms = [("EXPERIMENTAL", "{drug}"), ("PLACEBO_COMPARATOR", "{control}")]
    protocol = {
        "identificationModule": {
            "nctId": nct_id,
            "briefTitle": tell("{Drug} for {disease} in {place}"),
            "officialTitle": tell("A phase {phase} {blinding} study of {drug} in {disease}"),
        },
        "statusModule": {
            "overallStatus": "COMPLETED",
            "lastUpdatePostDateStruct": {"date": study.date},
        },
        "descriptionModule": {
            "briefSummary": tell(text["summary"]),
            "detailedDescription": tell(text["description"]),
        },
        "conditionsModule": {"conditions": [tell("{Disease}")]},
        "designModule": {"studyType": "INTERVENTIONAL", "phases": [tell("PHASE{phase}")]},
        "armsInterventionsModule": {
            "armGroups": [{"label": tell(label), "type": kind} for kind, label in arms],
            "interventions": [{"type": "DRUG", "name": tell(label)} for _, label in arms],
        },
        "outcomesModule": {
            "primaryOutcomes": [{"measure": tell("{Measure}"), "timeFrame": tell("{weeks} weeks")}],
            "secondaryOutcomes": [{"measure": tell("Time to {event}")}],
        },
        "eligibilityModule": {
            "eligibilityCriteria": tell(text["eligibility"]),
            "sex": "ALL",
            "minimumAge": "18 Years",
        },
    }
    return {"protocolSection": protocol, "hasResults": False}


def note_row(study: Study, number: int) -> dict[str, str]:
    """A section of a clinical note and the conversation behind it, with identifiers in it."""
    headers = list(GRAMMAR["notes"])
    header = headers[number % len(headers)]
    patient = make_patient(study, number)
    return {
        "ID": str(number),
        "section_header": header,
        "section_text": study.tell(GRAMMAR["notes"][header]["text"], **patient),
        "dialogue": study.tell(GRAMMAR["notes"][header]["dialogue"], **patient),
    }


def patent(study: Study, number: int, kind: str = "biomedical") -> str:
    """A grant in the XML of the weekly bulk files, where one document follows another."""
    text = {
        key: [escape(study.tell(part)) for part in ([value] if isinstance(value, str) else value)]
        for key, value in GRAMMAR["patents"][kind].items()
    }
    group, _, subgroup = GRAMMAR["patents"][kind]["ipcr"].partition(" ")[2].partition("/")
    claims = enumerate(text["claims"], start=1)
    return PATENT.format(
        number=number,
        application=number,
        date=study.date.replace("-", ""),
        ipcr=text["ipcr"][0],
        group=group,
        subgroup=subgroup,
        title=text["title"][0],
        abstract=text["abstract"][0],
        description="".join(f"<p>{part}</p>" for part in text["description"]),
        claims="".join(
            f"<claim><claim-text>{n}. {claim}</claim-text></claim>" for n, claim in claims
        ),
    )


def _label(label: str) -> str:
    return f' Label="{label}"' if label else ""


def _date(study: Study) -> dict[str, str]:
    return dict(zip(("year", "month", "day"), study.date.split("-"), strict=True))


def _jats_section(study: Study, title: str) -> str:
    paragraphs = "".join(f"<p>{escape(study.tell(text))}</p>" for text in GRAMMAR["article"][title])
    table = study.tell(JATS_TABLE) if title == "Results" else ""
    return f"<sec><title>{title}</title>{paragraphs}{table}</sec>"
