"""TRL, trained on an export with its training template, learns the same tokens."""

import os
import warnings

import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from megatron_biollm.tokenizer.chat_template import load_chat_template
from megatron_biollm.tokenizer.template_source import TRAINING_TEMPLATE_FILE
from tests.tokenizer.chats import CHATS

pytest.importorskip("trl", reason="parity with TRL needs trl, of the dev extra")
pytestmark = pytest.mark.slow


def trl_rows(folder):
    """Ids and labels of what TRL's trainer would train on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        arguments = SFTConfig(
            output_dir=str(folder / "trl"),
            assistant_only_loss=True,
            chat_template_path=str(folder / TRAINING_TEMPLATE_FILE),
            max_length=None,
            pad_token="</s>",
            use_cpu=True,
            report_to=[],
        )
        trainer = SFTTrainer(
            model=str(folder),
            args=arguments,
            train_dataset=Dataset.from_list([{"messages": chat} for chat in CHATS.values()]),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
        return list(trainer.train_dataset)


@pytest.mark.parametrize("name", ["default", "llama2"])
def test_trl_learns_the_same_tokens(hf_tokenizer, tmp_path, monkeypatch, name):
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    template = load_chat_template(hf_tokenizer, name)
    hf_tokenizer.save_pretrained(tmp_path)
    template.save(tmp_path, for_inference=True)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=hf_tokenizer.vocab_size, num_attention_heads=1, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    rows = trl_rows(tmp_path)
    for row, messages in zip(rows, CHATS.values(), strict=True):
        ours = template.encode(messages)
        assert row["input_ids"] == ours.tokens
        assert [label != -100 for label in row["labels"]] == ours.loss_mask
