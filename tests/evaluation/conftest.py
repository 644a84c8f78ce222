import shutil

import pytest
import torch
from tokenizers import Tokenizer, processors

from megatron_biollm.conversion.to_hf import write_config
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf
from megatron_biollm.tokenizer.chat_template import load_chat_template
from tests.generation import small_model
from tests.generation.saved_run import save_run


@pytest.fixture(scope="session")
def plain_tokenizer_folder(tmp_path_factory):
    """Adds nothing to a text."""
    return small_model.train_small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tokenizer_folder(plain_tokenizer_folder, tmp_path_factory):
    """Begins every text with BOS, as LLaMA's does."""
    folder = tmp_path_factory.mktemp("tokenizer") / "llama"
    shutil.copytree(plain_tokenizer_folder, folder)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def run_dir(world, tokenizer_folder, tmp_path_factory):
    """A run of the small model, which has lively logits, with a checkpoint of step 5."""
    run_dir = tmp_path_factory.mktemp("run")
    world.run(1, save_run, run_dir, tokenizer_folder, small_model.layout(), [5])
    return run_dir


@pytest.fixture(scope="session")
def export(run_dir, tmp_path_factory):
    """The same model as transformers loads it."""
    folder = tmp_path_factory.mktemp("exports") / "export"
    export_to_hf(ConversionConfig(run_dir / "checkpoints", folder))
    return folder


@pytest.fixture(scope="session")
def plain_export(export, plain_tokenizer_folder, tmp_path_factory):
    """The same weights with the other tokenizer."""
    folder = tmp_path_factory.mktemp("exports") / "plain"
    shutil.copytree(export, folder)
    for file in plain_tokenizer_folder.iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def chat_tokenizer_folder(tokenizer_folder, tmp_path_factory):
    """With the template of conversations that a fine-tuning run leaves in it."""
    folder = tmp_path_factory.mktemp("tokenizer") / "chat"
    tokenizer = small_model.tokenizer_of(tokenizer_folder)
    load_chat_template(tokenizer)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_export(export, chat_tokenizer_folder, tmp_path_factory):
    """The same weights with that tokenizer, as an export holds it."""
    folder = tmp_path_factory.mktemp("exports") / "chat"
    shutil.copytree(export, folder)
    tokenizer = small_model.tokenizer_of(chat_tokenizer_folder)
    sizes = small_model.sizes_for(tokenizer.vocab_size)
    write_config(folder, sizes, torch.float32, tokenizer)
    return folder
