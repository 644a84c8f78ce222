"""MEDIQA 2019, task 3: answers to consumers' questions, rated by hand, as preference pairs.

Every answer has a ReferenceScore of 1 (incorrect) to 4 (excellent); two answers to one question
with different scores are a pair (Ben Abacha et al. 2019, https://aclanthology.org/W19-5039; files
at https://github.com/abachaa/MEDIQA2019, MEDIQA_Task3_QA).
"""

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from megatron_biollm.config import UserError


def mediqa_pairs(path: str | Path, min_gap: int = 1) -> Iterator[dict[str, Any]]:
    """Preference rows of one file (XML, plain or gzipped), question by question.

    Args:
        path: a training, validation or labelled test file.
        min_gap: smallest difference of scores that makes a pair.

    Raises:
        UserError: no such file, no XML, or no scored answers.
    """
    questions = list(_parse(Path(path)).iter("Question"))
    rows = itertools.chain.from_iterable(_question_pairs(q, path, min_gap) for q in questions)
    first = next(rows, None)
    if first is None:
        raise UserError(
            f"{path} holds no two answers with different ReferenceScore; give a file of MEDIQA "
            f"2019 task 3 with labels"
        )
    yield first
    yield from rows


def _parse(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
        return etree.fromstring(data, parser)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); give a MEDIQA 2019 XML file") from error
    except etree.XMLSyntaxError as error:
        raise UserError(f"{path} is not XML ({error}); give a MEDIQA 2019 XML file") from error


def _question_pairs(question: Any, path: str | Path, min_gap: int) -> Iterator[dict[str, Any]]:
    asked = (question.findtext("QuestionText") or "").strip()
    answers = [_answer(answer, path) for answer in question.iter("Answer")]
    for one, two in itertools.combinations(answers, 2):
        better, worse = (one, two) if one["score"] > two["score"] else (two, one)
        if better["score"] - worse["score"] < max(min_gap, 1):
            continue
        yield {
            "id": f"{better['id']}/{worse['id']}",
            "prompt": [{"role": "user", "content": asked}],
            "chosen": [{"role": "assistant", "content": better["text"]}],
            "rejected": [{"role": "assistant", "content": worse["text"]}],
            "meta": {
                "source": Path(path).name,
                "question": question.get("QID"),
                "score_chosen": better["score"],
                "score_rejected": worse["score"],
            },
        }


def _answer(answer: Any, path: str | Path) -> dict[str, Any]:
    name, score = answer.get("AID"), answer.get("ReferenceScore")
    if score not in ("1", "2", "3", "4"):
        raise UserError(
            f"{path}: answer {name} has ReferenceScore {score!r}, which is 1, 2, 3 or 4 where "
            f"answers are rated; give a file with labels"
        )
    text = (answer.findtext("AnswerText") or "").strip()
    return {"id": name, "score": int(score), "text": text}
