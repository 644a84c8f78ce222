import gzip
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.finetune.conversations import read_conversations
from megatron_biollm.finetune.import_conversations import ImportOptions, import_conversations

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data/benchmarks"
DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="7" source="GHR" url="x"><Focus>Flu</Focus><QAPairs>
<QAPair pid="1"><Question qid="7-1" qtype="information">What is flu ?</Question>
<Answer>A virus &amp; more. \n\n\n\n Signs:   - fever  - cough  and  more</Answer></QAPair>
<QAPair pid="2"><Question qid="7-2" qtype="treatment">And?</Question><Answer> </Answer></QAPair>
</QAPairs></Document>"""


def turn(role, content):
    return {"role": role, "content": content}


def answered(question, answer):
    return [turn("user", question), turn("assistant", answer)]


def run(tmp_path, form, *inputs, **options):
    output = tmp_path / "out.jsonl"
    report = import_conversations(ImportOptions(form, list(inputs), output, **options))
    return report, [c.messages for c in read_conversations(output)]


def write(path, content):
    if not isinstance(content, str):
        content = "".join(json.dumps(row) + "\n" for row in content)
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


QA = [turn("user", "What?"), turn("assistant", 'So, "it" is\nso.')]
TABLES = {
    "a.jsonl": [{"ask": " What? ", "reply": QA[1]["content"]}],
    "a.json": json.dumps([{"ask": "What?", "reply": QA[1]["content"]}], indent=1),
    "a.csv": 'ask,reply\nWhat?,"So, ""it"" is\nso."\n',
    "a.tsv": 'reply\task\n"So, ""it"" is\nso."\tWhat?\n',
    "a.csv.gz": '\ufeffask,reply\nWhat?,"So, ""it"" is\nso."\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_questions_and_answers_are_read_from_every_kind_of_table(tmp_path, name):
    file = write(tmp_path / name, TABLES[name])
    report, written = run(tmp_path, "qa", file, question="ask", answer="reply")
    assert written == [QA] and (report.read, report.kept, report.dropped) == (1, 1, {})


def test_parquet_is_read_with_its_lists(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    rows = [{"messages": QA, "id": "x"}, {"messages": QA[:1], "id": "y"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=1)
    report, written = run(tmp_path, "messages", tmp_path / "a.parquet")
    assert written == [QA] and report.read == 2
    assert report.first == {"no message of role assistant": f"{tmp_path / 'a.parquet'}:2"}


def test_alpaca(tmp_path):
    rows = [
        {"instruction": "Name it.", "input": "fever, cough", "output": "Flu"},
        {"instruction": "Why?", "input": "", "output": "So.", "history": [["Eh?", "Oh."]]},
        {"instruction": "Then?", "output": "", "system": "Be brief."},
        {"instruction": "Now?", "output": "Yes", "system": "Be brief."},
    ]
    report, written = run(tmp_path, "alpaca", write(tmp_path / "a.json", json.dumps(rows)))
    assert written == [
        answered("Name it.\n\nfever, cough", "Flu"),
        [turn("user", "Eh?"), turn("assistant", "Oh."), *answered("Why?", "So.")],
        [turn("system", "Be brief."), *answered("Now?", "Yes")],
    ]
    assert report.dropped == {"no answer": 1}
    assert report.first == {"no answer": f"{tmp_path / 'a.json'}[2]"}


def share(*said):
    return {"conversations": [{"from": who, "value": text} for who, text in said]}


def test_sharegpt(tmp_path):
    asked, said = ("human", "What?"), ("gpt", "So.")
    rows = [
        share(asked, said),
        share(said, asked, said, asked),
        share(("system", "Be brief."), asked, said),
        share(asked, asked, said),
        share(asked, ("gpt", " ")),
        share(asked, ("function_call", "{}"), said),
        share(said),
        "broken",
    ]
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    report, written = run(tmp_path, "sharegpt", write(tmp_path / "a.jsonl", text))
    plain = answered("What?", "So.")
    assert written == [plain, plain, [turn("system", "Be brief."), *plain]]
    assert report.dropped == {
        "the speakers do not take turns": 1,
        "a message is empty": 1,
        "unknown role 'function_call'": 1,
        "no answered question": 1,
        "a line is not JSON": 1,
    }
    assert (report.read, report.kept) == (8, 3)
    assert report.first["a line is not JSON"].endswith("a.jsonl:8")


def test_the_own_form_is_copied_without_its_bad_lines(tmp_path):
    rows = [
        {"messages": QA, "id": "x", "meta": {"a": 1}},
        {"messages": QA[:1]},
        {"messages": [turn("nurse", "x"), *QA]},
        {"messages": [turn("user", ""), *QA]},
        {"text": "x"},
    ]
    report, written = run(tmp_path, "messages", write(tmp_path / "a.jsonl", rows))
    assert written == [QA] and report.read == 5
    run(tmp_path, "messages", (tmp_path / "out.jsonl").rename(tmp_path / "b.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert report.dropped == {
        "no message of role assistant": 1,
        "unknown role 'nurse'": 1,
        "a message is empty": 1,
        "not a list of messages": 1,
    }


def medquad(tmp_path):
    folder = tmp_path / "medquad" / "3_GHR_QA"
    folder.mkdir(parents=True)
    (folder / "0000007.xml").write_text(DOCUMENT)
    (folder / "0000008.xml").write_text("<Document>")
    with tarfile.open(tmp_path / "medquad.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "medquad", ".")
    return tmp_path / "medquad"


@pytest.mark.parametrize("packed", [False, True])
def test_medquad(tmp_path, packed):
    folder = medquad(tmp_path)
    source = tmp_path / "medquad.tar.gz" if packed else folder
    report, (messages,) = run(tmp_path, "medquad", source)
    answer = "A virus & more.\n\nSigns:\n- fever\n- cough and more"
    assert messages == [turn("user", "What is flu ?"), turn("assistant", answer)]
    assert report.dropped == {"no answer": 1, "a file that is not XML": 1}
    (conversation,) = read_conversations(tmp_path / "out.jsonl")
    assert conversation.id == "GHR-7-1"
    assert conversation.meta == {"source": "GHR", "focus": "Flu", "question_type": "information"}


def test_notes_of_conversations(tmp_path):
    section = 'ID,section_header,section_text,dialogue\n0,GENHX,Ill.,"Doctor: Hi \r\nPatient: Oh"\n'
    _, (messages,) = run(tmp_path, "mts-dialog", write(tmp_path / "a.csv", section))
    assert messages[0]["content"] == (
        'Write the section "history of present illness" of the clinical note about this '
        "conversation.\n\nDoctor: Hi\nPatient: Oh"
    )
    assert messages[1]["content"] == "Ill."
    visits = {
        "data": [
            {"src": "[doctor] hi", "tgt": "NOTE", "file": "D2N083-aci"},
            {"src": "[doctor] hi", "tgt": "EXAM", "file": "D2N083-aci-objective_exam"},
            {"src": "", "tgt": "EXAM", "file": "x"},
        ]
    }
    report, written = run(tmp_path, "aci-bench", write(tmp_path / "b.json", json.dumps(visits)))
    assert [messages[0]["content"] for messages in written] == [
        "Write the clinical note about this visit.\n\n[doctor] hi",
        "Write the objective exam part of the clinical note about this visit.\n\n[doctor] hi",
    ]
    assert report.dropped == {"no conversation": 1}


def test_a_system_message_is_put_before_those_without(tmp_path):
    rows = [{"messages": QA}, {"messages": [turn("system", "Own."), *QA]}]
    file = write(tmp_path / "a.jsonl", rows)
    _, written = run(tmp_path, "messages", file, system="You are a physician.")
    assert [m[0]["content"] for m in written] == ["You are a physician.", "Own."]


def test_half_a_character_is_dropped_in_a_message_and_replaced_in_an_id(tmp_path):
    rows = [{"messages": QA, "id": "a\ud83e"}, {"messages": answered("a\ud83e", "So.")}]
    report, written = run(tmp_path, "messages", write(tmp_path / "a.jsonl", rows), held_out=1e-9)
    assert written == [QA] and report.dropped == {"a message has half of a character": 1}
    assert next(read_conversations(tmp_path / "out.jsonl")).id == "a?"


def test_the_same_question_is_held_out_or_kept_but_not_both(tmp_path):
    rows = [{"question": f"What is {i % 200}?", "answer": f"It is {i}."} for i in range(400)]
    file = write(tmp_path / "a.jsonl", rows)
    report, kept = run(tmp_path, "qa", file, held_out=0.25)
    aside = [c.messages for c in read_conversations(tmp_path / "out_heldout.jsonl")]
    asked = [{messages[0]["content"] for messages in part} for part in (kept, aside)]
    assert not asked[0] & asked[1] and len(asked[0] | asked[1]) == 200
    assert (report.kept, report.held_out) == (len(kept), len(aside)) and 60 < len(aside) < 140
    _, half = run(tmp_path, "qa", write(tmp_path / "b.jsonl", rows[:200]), held_out=0.25)
    assert {m[0]["content"] for m in half} == asked[0]


def test_what_came_before_word_for_word_may_be_left_out(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"messages": QA}, {"messages": QA}])
    assert run(tmp_path, "messages", file)[0].kept == 2
    report, _ = run(tmp_path, "messages", file, unique=True)
    assert report.kept == 1 and report.dropped == {"the same as an earlier one": 1}


@pytest.mark.parametrize(
    ("form", "name", "content", "message"),
    [
        ("qa", "a.csv", "ask,reply\nWhat?,So.\n", "has no question, but ask, reply"),
        ("qa", "a.csv", 'question,answer\n"What?,So.\n', "is not a table"),
        ("qa", "a.jsonl", "", r"none of 0 records of .*there are none"),
        ("qa", "a.jsonl", '{"question": "", "answer": "x"}\n', r"1 no question\); give other"),
        ("sharegpt", "a.jsonl", '{"messages": []}\n', "has no conversations, but messages"),
        ("sharegpt", "a.json", "[{]", "is not JSON"),
        ("medquad", "a.xml", "no xml", "none of 1 records .*1 a file that is not XML"),
        ("medquad", "a.tar.gz", "no archive", "is not a whole archive"),
        ("mts-dialog", "a.csv", "question,answer\na,b\n", "has no section_header, but question"),
        ("qa", "a.csv.gz", None, "cannot be read"),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(tmp_path, form, name, content, message):
    file = tmp_path / name
    file.write_bytes(b"\x1f\x8btorn" if content is None else content.encode())
    with pytest.raises(UserError, match=message):
        run(tmp_path, form, file, held_out=0.1)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("question,answer\nnaïve,b\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8 at byte 18"):
        run(tmp_path, "qa", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "chatml"}, "'chatml' is unknown; give one of messages, qa"),
        ({"held_out": 1.0}, "must be at least 0 and below 1"),
        ({"system": " "}, "--system is empty"),
        ({"inputs": ["out_heldout.jsonl"]}, "input and output at once"),
        ({"inputs": ["none.jsonl"]}, "is not a file"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    form = options.pop("form", "qa")
    inputs = [tmp_path / name for name in options.pop("inputs", ["a.jsonl"])]
    with pytest.raises(UserError, match=message):
        run(tmp_path, form, *inputs, **options)


@pytest.mark.skipif(not REAL.is_dir(), reason="the benchmark files are not beside the checkout")
def test_the_real_files_have_as_many_conversations_as_published(tmp_path):
    archive = REAL / "align_medquad/MedQuAD_9_collections_with_answers.tar.gz"
    report, _ = run(tmp_path, "medquad", archive)
    assert (report.kept, report.dropped) == (16407, {"no answer": 5})
    notes = {
        "mts-dialog": {"TrainingSet.csv.gz": 1201, "ValidationSet.csv": 100},
        "aci-bench": {"train.csv.gz": 67, "valid.csv": 20, "test1.csv": 40, "test2.csv": 40},
    }
    notes["mts-dialog"] |= {"TestSet-1-MEDIQA-Chat-2023.csv": 200}
    for form, files in notes.items():
        for name, number in files.items():
            (file,) = REAL.glob(f"extra_{form.replace('-', '_')}/*{name}")
            report, _ = run(tmp_path, form, file)
            assert (report.kept, report.dropped) == (number, {})


def test_the_tool_prints_the_counts(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"question": "a", "answer": "b"}, {"question": "a"}])
    command = [sys.executable, ROOT / "tools/prepare_conversations.py", "--format", "qa"]
    command += ["--input", file, "--output", tmp_path / "out.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "a.jsonl:2 has no answer, but question" in done.stderr
    write(file, [{"question": "a", "answer": "b"}, {"question": "a", "answer": None}])
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["dropped"] == {"no answer": 1}
