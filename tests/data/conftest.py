"""Corpora written byte by byte from the description of the format, without any of our code."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.tokenizer.tokenizer import TokenizerConfig

SENTENCES = [
    "Aspirin inhibits cyclooxygenase and thus the synthesis of prostaglandins.",
    "IL-6 levels fell by 12.5 % after treatment (p < 0.001).",
    "β-catenin accumulates in the nucleus; naïve cells were spared.",
    "Patients with type 2 diabetes received metformin 500 mg twice daily.",
    "No adverse events were observed in 東京, nor elsewhere.",
]


def spelled_out(documents: list[list[list[int]]], dtype: str = "<u2") -> tuple[bytes, bytes]:
    """The bytes of .bin and .idx for documents made of sequences of ids."""
    code = {"<u2": 8, "<i4": 4}[dtype]
    sequences = [sequence for document in documents for sequence in document]
    size = np.dtype(dtype).itemsize
    idx = b"MMIDIDX\x00\x00" + struct.pack("<QB", 1, code)
    idx += struct.pack("<QQ", len(sequences), len(documents) + 1)
    offset, lengths, pointers = 0, b"", b""
    for sequence in sequences:
        lengths += struct.pack("<i", len(sequence))
        pointers += struct.pack("<q", offset)
        offset += len(sequence) * size
    bounds, count = struct.pack("<q", 0), 0
    for document in documents:
        count += len(document)
        bounds += struct.pack("<q", count)
    ids = b"".join(np.array(sequence, dtype).tobytes() for sequence in sequences)
    return ids, idx + lengths + pointers + bounds


@pytest.fixture(scope="session", name="spelled_out")
def _spelled_out() -> Callable[..., tuple[bytes, bytes]]:
    return spelled_out


@pytest.fixture
def write_corpus(tmp_path: Path) -> Callable[..., str]:
    """Writes `documents` documents of random lengths and returns the prefix."""

    def write(
        name: str = "corpus", documents: int = 60, seed: int = 0, longest: int = 40, vocab: int = 99
    ) -> str:
        random = np.random.default_rng(seed)
        lengths = random.integers(1, longest + 1, documents)
        texts = [[random.integers(3, vocab, n).tolist()] for n in lengths]
        ids, index = spelled_out(texts)
        prefix = tmp_path / name
        prefix.with_suffix(".bin").write_bytes(ids)
        prefix.with_suffix(".idx").write_bytes(index)
        return str(prefix)

    return write


@pytest.fixture(scope="session")
def hugging_face_model(tmp_path_factory: pytest.TempPathFactory) -> TokenizerConfig:
    """A small byte-fallback BPE in a Hugging Face folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("hugging_face")
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return TokenizerConfig(tokenizer_model=str(folder))


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> TokenizerConfig:
    """A small byte-fallback BPE of SentencePiece."""
    import sentencepiece

    prefix = tmp_path_factory.mktemp("sentencepiece") / "tiny"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(prefix),
        vocab_size=380,
        model_type="bpe",
        byte_fallback=True,
        num_threads=1,
        minloglevel=2,
    )
    return TokenizerConfig("SentencePieceTokenizer", f"{prefix}.model")
