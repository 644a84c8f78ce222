import pytest

from tests.generation import small_model


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    return small_model.train_small_tokenizer(tmp_path_factory.mktemp("tokenizer"))
