"""MTS-Dialog: a section of a clinical note from the conversation of doctor and patient.

Ben Abacha et al. 2023 (https://aclanthology.org/2023.eacl-main.168), files at
https://github.com/abachaa/MTS-Dialog. `mts_dialog` asks for the section's text, and
`mts_dialog_section` which of twenty sections it is; the test sets are those of MEDIQA-Chat 2023,
task A, and of MEDIQA-Sum 2023.
"""

from collections.abc import Iterator, Sequence

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.accuracy import UNREADABLE, score_choices
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Prompt, Source
from megatron_biollm.evaluation.files import filled, read_records
from megatron_biollm.evaluation.items import ChoiceItem, Prediction, TextItem
from megatron_biollm.evaluation.summaries import STEMMER, score_texts
from megatron_biollm.evaluation.tally import Tally

# As the files name them, and in words.
SECTIONS = {
    "FAM/SOCHX": "family or social history",
    "GENHX": "history of present illness",
    "PASTMEDICALHX": "past medical history",
    "CC": "chief complaint",
    "PASTSURGICAL": "past surgical history",
    "ALLERGY": "allergies",
    "ROS": "review of systems",
    "MEDICATIONS": "medications",
    "ASSESSMENT": "assessment",
    "EXAM": "physical examination",
    "DIAGNOSIS": "diagnosis",
    "DISPOSITION": "disposition",
    "PLAN": "plan",
    "EDCOURSE": "course in the emergency department",
    "IMMUNIZATIONS": "immunizations",
    "IMAGING": "imaging",
    "GYNHX": "gynaecological history",
    "PROCEDURES": "procedures",
    "OTHER_HISTORY": "other history",
    "LABS": "laboratory results",
}
_COLUMNS = ("ID", "section_header", "section_text", "dialogue")
_PUBLISHED = {
    "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv": 200,
    "MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv": 200,
    "MTS-Dialog-ValidationSet.csv": 100,
    "MTS-Dialog-TrainingSet.csv": 1201,
}
_TOLD = Convention(
    "section",
    ("untold", "told"),
    "whether the model is told which section to write; the challenges did not tell",
)


def read(source: Source, conventions: Conventions) -> list[TextItem]:
    """The conversations of a file, by its own ids, with the text of the note's section.

    Raises:
        UserError: with file and line: another format, or an unknown section.
    """
    told = conventions["section"] == "told"
    return filled(
        [
            TextItem(
                id=row["ID"],
                document=row["ID"],
                text=row["dialogue"].strip(),
                references=(row["section_text"].strip(),),
                group=SECTIONS[row["section_header"]] if told else "",
                part=SECTIONS[row["section_header"]],
            )
            for row in _rows(source)
        ],
        source.path("table"),
        _PUBLISHED,
    )


def read_sections(source: Source, conventions: Conventions) -> list[ChoiceItem]:
    """The conversations of a file with their sections as choices.

    Raises:
        UserError: as `read`.
    """
    names = tuple(SECTIONS)
    items = [
        ChoiceItem(
            id=row["ID"],
            document=row["ID"],
            question=row["dialogue"].strip(),
            choices=tuple(SECTIONS.values()),
            answer=names.index(row["section_header"]),
        )
        for row in _rows(source)
    ]
    return filled(items, source.path("table"), _PUBLISHED)


def score(
    items: Sequence[TextItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """ROUGE, and of each section."""
    return score_texts(items, predictions, conventions["stemmer"])


def score_sections(
    items: Sequence[ChoiceItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Accuracy and macro-F1 over the sections."""
    return score_choices(items, predictions, conventions["unreadable"], tuple(SECTIONS.values()))


def _rows(source: Source) -> Iterator[dict[str, str]]:
    for where, row in read_records(source.path("table"), _COLUMNS):
        if row["section_header"] not in SECTIONS:
            raise UserError(
                f"{where}: the section is {row['section_header']!r:.40}; it must be one of "
                f"{', '.join(SECTIONS)}"
            )
        yield row


_PLACE = {
    "folder": "extra_mts_dialog",
    "download": "MTS-Dialog, Main-Dataset (https://github.com/abachaa/MTS-Dialog)",
    "splits": {
        "test1": {"table": "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv"},
        "test2": {"table": "MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv"},
        "valid": {"table": "MTS-Dialog-ValidationSet.csv"},
        "train": {"table": "MTS-Dialog-TrainingSet.csv"},
    },
    "test_split": "test1",
    "fewshot_split": "train",
    "task": "extra",
}
MTS_DIALOG = Benchmark(
    name="mts_dialog",
    title="MTS-Dialog",
    prompt=Prompt(
        "You are a medical scribe. Write down what the conversation of doctor and patient says as "
        "a section of the clinical note.",
        (
            "Summarize the dialogue below as it would stand in the patient's record.",
            "Turn this conversation into the matching part of a clinical note.",
        ),
    ),
    read=read,
    score=score,
    conventions=(_TOLD, STEMMER),
    **_PLACE,
)
MTS_DIALOG_SECTION = Benchmark(
    name="mts_dialog_section",
    title="MTS-Dialog, section",
    prompt=Prompt(
        "You are a medical scribe. Say to which section of the clinical note the conversation of "
        "doctor and patient belongs.",
        (
            "Which part of a clinical note does the dialogue below give? Name the section.",
            "Name the section of the patient's record in which this conversation is noted.",
        ),
    ),
    read=read_sections,
    score=score_sections,
    conventions=(UNREADABLE,),
    **_PLACE,
)
