"""Conversations of doctor and patient, and the note that was written of them.

MTS-Dialog (Ben Abacha et al. 2023, https://github.com/abachaa/MTS-Dialog): one section of a note;
ACI-Bench (Yim et al. 2023, https://github.com/wyim/aci-bench): the note of a whole visit, or in
its JSON files one division of it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_biollm.finetune.imported import Dropped, Imported, asked
from megatron_biollm.finetune.records import field, import_records

# As https://github.com/abachaa/MTS-Dialog spells its section headers out.
_SECTIONS = {
    "FAM/SOCHX": "family history and social history",
    "GENHX": "history of present illness",
    "PASTMEDICALHX": "past medical history",
    "CC": "chief complaint",
    "PASTSURGICAL": "past surgical history",
    "ALLERGY": "allergies",
    "ROS": "review of systems",
    "GYNHX": "gynecologic history",
    "EDCOURSE": "emergency department course",
    "OTHER_HISTORY": "other history",
}
_DIVISION = re.compile(r"-(subjective|objective_exam|objective_results|assessment_and_plan)$")


def read_mts_dialog(path: Path) -> Iterator[Imported | Dropped]:
    """CSV of section_header, section_text and dialogue.

    Raises:
        UserError: another table.
    """
    return import_records(path, _section)


def read_aci_bench(path: Path) -> Iterator[Imported | Dropped]:
    """CSV of dialogue and note, or JSON of src, tgt and file.

    Raises:
        UserError: another table.
    """
    return import_records(path, _visit)


def _section(record: dict[str, Any], where: str) -> Imported | Dropped:
    header = field(record, ["section_header"], where)
    section = _SECTIONS.get(header.upper(), header.lower().replace("_", " "))
    return _note(
        f'Write the section "{section}" of the clinical note about this conversation.',
        field(record, ["dialogue"], where),
        field(record, ["section_text"], where),
        where,
        field(record, ["ID", "id"], where),
        {"source": "MTS-Dialog", "section": header},
    )


def _visit(record: dict[str, Any], where: str) -> Imported | Dropped:
    name = field(record, ["encounter_id", "file"], where)
    division = _DIVISION.search(name)
    part = f"the {division[1].replace('_', ' ')} part of " if division else ""
    return _note(
        f"Write {part}the clinical note about this visit.",
        field(record, ["dialogue", "src"], where),
        field(record, ["note", "tgt"], where),
        where,
        name,
        {"source": "ACI-Bench", "dataset": record.get("dataset", "")},
    )


def _note(
    task: str, dialogue: str, note: str, where: str, name: str, meta: dict[str, Any]
) -> Imported | Dropped:
    lines = [line.strip() for line in dialogue.splitlines() if line.strip()]
    if not lines:
        return Dropped(where, "no conversation")
    said = "\n".join(lines)
    return asked(f"{task}\n\n{said}", note, where, name, meta, group=said)
