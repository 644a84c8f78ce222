import json
import shutil

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from megatron_biollm.tokenizer.plain_files import load_plain
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer
from megatron_biollm.tokenizer.train import train_tokenizer

TEXTS = ["Aspirin inhibits cyclooxygenase.", "</s> in a text <s>", "", "  two  β-catenin\n"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("plain")
    train_tokenizer(TEXTS * 9, 600, base / "own")
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    backend.enable_truncation(4)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(base / "saved")
    return base


def with_config(folder, target, **changes):
    shutil.copytree(folder, target)
    path = target / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return target


@pytest.mark.parametrize("name", ["own", "saved"])
@pytest.mark.parametrize("changes", [{}, {"split_special_tokens": True}, {"pad_token": "<unk>"}])
def test_plain_files_load_as_transformers_loads_them(folders, tmp_path, name, changes):
    folder = with_config(folders / name, tmp_path / "t", **changes)
    backend, ids = load_plain(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    for one in (backend, theirs.backend_tokenizer):
        one.no_truncation()
    for text in TEXTS:
        assert backend.encode(text).ids == theirs.backend_tokenizer.encode(text).ids
    assert backend.encode_special_tokens == theirs.backend_tokenizer.encode_special_tokens
    for token in ("bos_token", "eos_token", "pad_token"):
        assert ids[token] == getattr(theirs, f"{token}_id")


def test_the_digest_does_not_depend_on_who_loaded_the_files(folders, tmp_path):
    direct = build_tokenizer(TokenizerConfig(tokenizer_model=str(folders / "own")))
    folder = with_config(folders / "own", tmp_path / "t", unknown_setting=1)
    assert load_plain(folder) is None
    through_transformers = build_tokenizer(TokenizerConfig(tokenizer_model=str(folder)))
    assert direct.sha256 == through_transformers.sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer_class": "LlamaTokenizerFast"},
        {"add_bos_token": True},
        {"eos_token": {"content": "</s>", "lstrip": True}},
        {"eos_token": "a token that is not there"},
    ],
)
def test_files_that_ask_for_more_are_left_to_transformers(folders, tmp_path, changes):
    assert load_plain(with_config(folders / "own", tmp_path / "t", **changes)) is None


def test_damaged_files_are_left_to_transformers(folders, tmp_path):
    folder = with_config(folders / "own", tmp_path / "t")
    (folder / "tokenizer.json").write_text("{")
    assert load_plain(folder) is None
    (folder / "tokenizer_config.json").write_text("{")
    assert load_plain(folder) is None
    assert load_plain(tmp_path / "nowhere") is None
