import io
import random

import pytest
import sentencepiece

from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

STEMS = ["cardi", "hepat", "nephr", "neur", "gastr", "derm", "oste", "pneum", "arthr", "cyt"]
ENDINGS = ["itis", "osis", "opathy", "ology", "ectomy", "ocyte", "algia", "oma"]


@pytest.fixture(scope="session")
def texts():
    """Made-up sentences with words, numbers, signs and line ends of medical text."""
    dice = random.Random(1)
    words = [a + b for a in STEMS for b in ENDINGS] + ["the", "of", "in", "patients", "β-blocker"]
    syllables = [a + b for a in "bcdfghjklmnpqrstvwxyz" for b in "aeiou"]
    words += ["".join(dice.choices(syllables, k=3)) for _ in range(300)]

    def sentence():
        chosen = " ".join(dice.choice(words) for _ in range(12))
        return f"{chosen} of the patients ({dice.randrange(999) / 10}%, n = {dice.randrange(99)})."

    return [f"{sentence()}\n\nRESULTS: {sentence()} {sentence()}" for _ in range(150)]


@pytest.fixture
def difficult_texts():
    """What tokenizers disagree on."""
    return [
        "",
        " ",
        "  leading,  double and trailing  ",
        "line\n\nend\r\n\ttab",
        "hepatitis 12.5% ≥ 3 µg/mL, naïve café e\u0301 ½ ﬁ",
        "東京 🧬 \u00a0x\u2009y \u200b z",
        "hepatocyte" * 40,
    ]


@pytest.fixture(scope="session")
def hf_folder(texts, tmp_path_factory):
    return train_tokenizer(texts, 600, tmp_path_factory.mktemp("hf") / "tokenizer")


@pytest.fixture
def hf_tokenizer(hf_folder):
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(hf_folder)))


@pytest.fixture(scope="session")
def sentencepiece_file(texts, tmp_path_factory):
    """A model with the settings LLaMA-2's was trained with."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    file = tmp_path_factory.mktemp("spm") / "llama.model"
    file.write_bytes(model.getvalue())
    return file
