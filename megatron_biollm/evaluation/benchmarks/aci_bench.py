"""ACI-Bench: the whole clinical note of a visit from the conversation of doctor and patient.

Yim et al. 2023 (https://doi.org/10.1038/s41597-023-02487-3), files at
https://github.com/wyim/aci-bench, `data/challenge_data`; the test sets are those of MEDIQA-Chat
2023, tasks B and C, and of MEDIQA-Sum 2023. Scored as whole notes and, as the paper does, in four
divisions, which begin at known headings.
"""

from collections.abc import Sequence
from dataclasses import replace

from megatron_biollm.evaluation.benchmark import Benchmark, Conventions, Prompt, Source
from megatron_biollm.evaluation.files import filled, read_records
from megatron_biollm.evaluation.items import Prediction, TextItem
from megatron_biollm.evaluation.summaries import STEMMER, score_texts
from megatron_biollm.evaluation.tally import Tally

_COLUMNS = ("dataset", "encounter_id", "dialogue", "note")
_PUBLISHED = {
    "clinicalnlp_taskB_test1.csv": 40,
    "clinicalnlp_taskC_test2.csv": 40,
    "clef_taskC_test3.csv": 40,
    "valid.csv": 20,
    "train.csv": 67,
}
# Headings with which a division begins; all that follows belongs to it, up to the next division.
DIVISIONS = {
    "subjective": (
        "cc", "chief complaint", "reason for visit", "history of present illness", "history", "hpi",
        "hpi notes", "interval history", "subjective", "ros", "review of systems",
        "review of system", "social history", "past history",
    ),
    "objective_exam": (
        "physical exam", "physical examination", "pe", "physical findings", "examination", "exam",
        "vitals reviewed",
    ),
    "objective_results": ("results", "findings"),
    "assessment_and_plan": (
        "assessment", "plan", "plan of care", "summary plan", "impression", "ap", "a/p",
        "assessment and plan", "assessment & plan", "disposition / plan",
        "medical decision-making plan",
    ),
}  # fmt: skip


def read(source: Source, conventions: Conventions) -> list[TextItem]:
    """The visits of a file, by their own ids; parts are the three ways they were recorded.

    Raises:
        UserError: with file and line: another format.
    """
    path = source.path("table")
    rows = read_records(path, _COLUMNS)
    return filled([_item(row) for _, row in rows], path, _PUBLISHED)


def score(
    items: Sequence[TextItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """ROUGE of whole notes, of each way of recording, and of each division.

    A division that neither note has does not count; one that only one of them has scores 0.
    """
    stemmer = conventions["stemmer"]
    tally = score_texts(items, predictions, stemmer)
    parts = {name: _division(name, items, predictions, stemmer) for name in DIVISIONS}
    return replace(tally, parts={**tally.parts, **parts} if items else {})


def divide(note: str) -> dict[str, str]:
    """The divisions of a note with their headings; what stands before the first is subjective."""
    found: dict[str, list[str]] = {"subjective": []}
    division = "subjective"
    for line in note.splitlines():
        division = _begins(line) if _begins(line) not in ("", *found) else division
        found.setdefault(division, []).append(line)
    texts = {name: "\n".join(lines).strip() for name, lines in found.items()}
    return {name: text for name, text in texts.items() if text}


def _begins(line: str) -> str:
    """The division that a line begins with its heading; empty for none."""
    words = " ".join(line.partition(":")[0].lower().split())
    return next((name for name, known in DIVISIONS.items() if words in known), "")


def _division(
    name: str, items: Sequence[TextItem], predictions: Sequence[Prediction], stemmer: str
) -> Tally:
    own, texts = [], []
    for item, text in zip(items, predictions, strict=True):
        references = tuple(divide(one).get(name, "") for one in item.references)
        written = divide(text).get(name, "") if isinstance(text, str) else None
        if any(references) or written:
            own.append(replace(item, references=references, part=""))
            texts.append(written)
    return score_texts(own, texts, stemmer)


def _item(row: dict[str, str]) -> TextItem:
    return TextItem(
        id=row["encounter_id"],
        document=row["encounter_id"],
        text=row["dialogue"].strip(),
        references=(row["note"].strip(),),
        part=row["dataset"],
    )


ACI_BENCH = Benchmark(
    name="aci_bench",
    title="ACI-Bench",
    task="extra",
    folder="extra_aci_bench",
    download="ACI-Bench, data/challenge_data (https://github.com/wyim/aci-bench)",
    splits={
        "test1": {"table": "clinicalnlp_taskB_test1.csv"},
        "test2": {"table": "clinicalnlp_taskC_test2.csv"},
        "test3": {"table": "clef_taskC_test3.csv"},
        "valid": {"table": "valid.csv"},
        "train": {"table": "train.csv"},
    },
    test_split="test1",
    fewshot_split="train",
    prompt=Prompt(
        "You are a medical scribe. Write the clinical note of the visit that the conversation of "
        "doctor and patient records, with the headings CHIEF COMPLAINT, HISTORY OF PRESENT "
        "ILLNESS, PHYSICAL EXAM, RESULTS and ASSESSMENT AND PLAN.",
        (
            "Summarize the visit below as a full note with the usual sections: history, "
            "examination, results, assessment and plan.",
            "From this conversation write what the doctor would enter in the patient's record, "
            "section by section, each under its heading.",
        ),
    ),
    read=read,
    score=score,
    conventions=(STEMMER,),
)
