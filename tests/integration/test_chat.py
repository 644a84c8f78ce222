"""What is learnt in conversations is answered by the checkpoint and by its export, and ends."""

import json

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from megatron_biollm.generation.sampling import SamplingOptions
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf
from megatron_biollm.recipes.generate import generate
from tests.integration import sft_run

ANSWERS = {
    "the liver": "pain of the kidney",
    "the heart": "drug daily",
    "dose": "patients of the heart </s> daily",
}


def conversations():
    """Each question alone, and two of them in one conversation."""
    turns = [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        for asked, answer in ANSWERS.items()
    ]
    return [*turns, turns[0] + turns[1], turns[2] + turns[0]]


def answers(run_dir, chats):
    options = SamplingOptions(max_new_tokens=40, greedy=True)
    rows = generate(run_dir, chats, options, device_name="cpu")
    return [(row.prompt_tokens, row.tokens, row.text.strip(), row.finish_reason) for row in rows]


@pytest.mark.parametrize("template", ["default", pytest.param("llama2", marks=pytest.mark.slow)])
def test_answers_are_learnt_given_and_exported(world, tmp_path, template):
    overrides = sft_run.write_inputs(tmp_path)
    lines = [json.dumps({"messages": messages}) + "\n" for messages in conversations()]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    overrides += [
        f"run_dir={tmp_path / 'run'}",
        f"tokenizer.chat_template={template}",
        "training.train_iters=60",
        "model.seq_length=128",
    ]
    assert world.run(1, sft_run.finetune_here, overrides, joined=False) == [60]
    chats = [messages[:-1] for messages in conversations()]
    (ours,) = world.run(1, answers, tmp_path / "run", chats, joined=False)
    for messages, (_, _, text, reason) in zip(conversations(), ours, strict=True):
        assert (text, reason) == (messages[-1]["content"].replace("</s>", "< /s>"), "eod")
    export_to_hf(ConversionConfig(tmp_path / "run", tmp_path / "export"))
    assert theirs(tmp_path / "export", chats) == [
        prompt + tokens + [2] for prompt, tokens, *_ in ours
    ]


def theirs(folder, chats):
    reader, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder)
    found = []
    for chat in chats:
        asked = reader.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**asked, max_new_tokens=40, do_sample=False, pad_token_id=0)
        found.append(ids[0].tolist())
    return found
