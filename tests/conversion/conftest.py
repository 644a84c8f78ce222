import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from megatron_biollm.tokenizer.train import train_tokenizer

SIZES = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}


@pytest.fixture(scope="session")
def make_hf(tmp_path_factory):
    """Makes folders of tiny random LLaMAs; fields of the config may be given."""

    def make(dtype=torch.float32, max_shard_size="200KB", **fields):
        folder = tmp_path_factory.mktemp("hf") / "model"
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "initializer_range": 0.2, **fields}))
        for name, weight in model.named_parameters():
            if "norm" in name:  # ones would hide a mix-up of norms
                torch.nn.init.uniform_(weight, 0.5, 1.5)
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
        return folder

    return make


@pytest.fixture(scope="session")
def hf_model(make_hf):
    """Grouped queries: 8 query heads in 2 groups. Read only."""
    return make_hf()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A small LLaMA-style tokenizer."""
    words = ["cardi", "hepat", "nephr", "neur", "gastr", "derm", "oste", "pneum"]
    texts = [f"{a}itis and {b}ology of {c}ocytes" for a in words for b in words for c in words]
    syllables = [a + b for a in "bcdfghjklmnpqrstvwxyz" for b in "aeiou"]
    texts += [f"{a}{b} {b}{a}{a} {a}n{b}" for a in syllables for b in syllables[::7]]
    return train_tokenizer(texts, 520, tmp_path_factory.mktemp("tokenizer") / "base")
