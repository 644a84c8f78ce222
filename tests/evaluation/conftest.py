import shutil

import pytest
from tokenizers import Tokenizer, processors

from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf
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
