import pytest

from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

TEXTS = [
    "Patients with hepatitis were treated with interferon (12.5 mg) for 24 weeks.",
    "The cells of the liver express the receptor; expression was reduced after treatment.",
    "  Methods:\n\tRandomised, double-blind trial of 120 patients with neuropathy.",
]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A small byte-fallback vocabulary: signs that no text above has become bytes."""
    return train_tokenizer(TEXTS * 20, 512, tmp_path_factory.mktemp("tokenizer") / "small")


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder):
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(tokenizer_folder)))
