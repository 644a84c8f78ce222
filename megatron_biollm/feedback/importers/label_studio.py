"""Label Studio's JSON: tasks with two texts, and the annotations of its Pairwise template.

Template: https://labelstud.io/templates/pairwise_comparison; format:
https://labelstud.io/guide/task_format. A task's `data` holds the prompt and two answers; a result
of type `pairwise` selects left or right, and choices of our own template (`LABEL_CONFIG`) add the
rest.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.config import UserError
from megatron_biollm.feedback.importers.rows import PROMPT_KEYS, id_of, messages, read_rows, text_of
from megatron_biollm.feedback.items import Answer, Item, Opinion
from megatron_biollm.feedback.judging import storable
from megatron_biollm.feedback.words import ANNOTATOR, CATEGORIES

PAIRS_OF_KEYS = (
    ("answer_a", "answer_b"), ("answer1", "answer2"), ("text1", "text2"), ("left", "right"),
    ("response1", "response2"), ("response_a", "response_b"),
)  # fmt: skip
VERDICTS = {"left": "first", "right": "second"}
# Values of the choice that stands beside the Pairwise control in our template.
OTHER_VERDICTS = ("tie", "both_unsafe", "cannot_judge")
_CHOICES = "".join(f'<Choice value="{value}"/>' for value in OTHER_VERDICTS)
_HARMS = "".join(f'<Choice value="{key}"/>' for key in CATEGORIES)
LABEL_CONFIG = f"""<View>
  <Paragraphs name="prompt" value="$prompt" layout="dialogue" nameKey="role" textKey="content"/>
  <Pairwise name="preference" toName="answer_a,answer_b"/>
  <View style="display: flex"><Text name="answer_a" value="$answer_a"/>
    <Text name="answer_b" value="$answer_b"/></View>
  <Choices name="other" toName="prompt">{_CHOICES}</Choices>
  <Rating name="strength" toName="prompt" maxRating="3"/>
  <Choices name="unsafe_a" toName="answer_a">{_HARMS}</Choices>
  <Choices name="unsafe_b" toName="answer_b">{_HARMS}</Choices>
  <Choices name="error_a" toName="answer_a"><Choice value="wrong"/></Choices>
  <Choices name="error_b" toName="answer_b"><Choice value="wrong"/></Choices>
  <TextArea name="rationale" toName="prompt"/>
  <TextArea name="correction" toName="prompt"/>
</View>
"""


def read_label_studio(path: str | Path, name: str = "label-studio") -> Iterator[Item]:
    """Tasks, with the opinions of those who annotated them; cancelled annotations are left out."""
    for place, task in read_rows(path):
        data = task.get("data")
        if not isinstance(data, dict):
            raise UserError(f"{place} has no 'data'; export the project as JSON (not JSON-MIN)")
        first, second = _keys(data, place)
        prompt = next((data[key] for key in PROMPT_KEYS if data.get(key)), None)
        if prompt is None:
            raise UserError(f"{place} has no prompt in its data; give one of {PROMPT_KEYS}")
        meta = data.get("meta") if isinstance(data.get("meta"), dict) else {}
        yield Item(
            prompt=messages(prompt, place),
            answers=(
                Answer(text_of(data[first], place), str(data.get("model_a", ""))),
                Answer(text_of(data[second], place), str(data.get("model_b", ""))),
            ),
            gold=data.get("gold"),
            specialty=str(data.get("specialty", "")),
            source=name,
            external_id=id_of(data) or id_of(task) or "",
            meta=meta,
            opinions=tuple(_opinions(task, name, place)),
        )


def _keys(data: dict[str, Any], place: str) -> tuple[str, str]:
    for pair in PAIRS_OF_KEYS:
        if all(key in data for key in pair):
            return pair
    raise UserError(
        f"{place} has no two answers in its data ({', '.join(data)}); name them answer_a, answer_b"
    )


def _opinions(task: dict[str, Any], name: str, place: str) -> Iterator[Opinion]:
    for annotation in task.get("annotations") or task.get("completions") or []:
        if annotation.get("was_cancelled"):
            continue
        opinion = _opinion(annotation, _person(annotation, name))
        if opinion is None and annotation.get("result"):
            raise UserError(
                f"{place}: an annotation has no result of type 'pairwise' and no choice of "
                f"{', '.join(OTHER_VERDICTS)}; remove it, or name the choices so"
            )
        if opinion is not None:
            yield opinion


def _person(annotation: dict[str, Any], name: str) -> str:
    by = annotation.get("completed_by", "unknown")
    if isinstance(by, dict):
        by = by.get("email") or by.get("username") or by.get("id", "unknown")
    return f"{name} {by}" if isinstance(by, int) or by == "unknown" else str(by)


def _opinion(annotation: dict[str, Any], by: str) -> Optional[Opinion]:
    values = {r.get("from_name"): r for r in annotation.get("result") or [] if isinstance(r, dict)}
    verdict = next(
        (VERDICTS.get(r["value"].get("selected")) for r in values.values() if _is_pairwise(r)), None
    )
    other = _choice(values, "other")
    verdict = verdict or (other if other in OTHER_VERDICTS else None)
    if verdict is None:
        return None
    rating = values.get("strength", {}).get("value", {}).get("rating")
    seconds = annotation.get("lead_time")
    return Opinion(
        by=by,
        preference=verdict,
        role=ANNOTATOR,
        strength=rating if rating in (1, 2, 3) and verdict in ("first", "second") else None,
        rationale=_text(values, "rationale"),
        correction=_text(values, "correction"),
        unsafe=(_choice(values, "unsafe_a"), _choice(values, "unsafe_b")),
        error=(bool(_choice(values, "error_a")), bool(_choice(values, "error_b"))),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
    )


def _is_pairwise(result: dict[str, Any]) -> bool:
    return result.get("type") == "pairwise" and isinstance(result.get("value"), dict)


def _choice(values: dict[str, Any], name: str) -> str:
    choices = values.get(name, {}).get("value", {}).get("choices") or [""]
    return str(choices[0])


def _text(values: dict[str, Any], name: str) -> str:
    text = values.get(name, {}).get("value", {}).get("text") or ""
    return storable("\n".join(text) if isinstance(text, list) else str(text))
