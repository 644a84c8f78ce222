"""From Hugging Face and back: the same bits, the true vocabulary, and nothing wrong is kept."""

import io
import json
import resource
import shutil
import signal
from dataclasses import replace

import pytest
import sentencepiece
import torch
import yaml
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from transformers import AutoTokenizer, LlamaForCausalLM

from megatron_biollm.checkpoint import verify
from megatron_biollm.checkpoint.stream import CheckpointReader
from megatron_biollm.config import UserError
from megatron_biollm.conversion.safetensors_stream import ShardedReader
from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.recipes.convert import ConversionConfig, export_to_hf, import_from_hf
from megatron_biollm.tokenizer.extend import load_extension
from megatron_biollm.tokenizer.extend_files import extend_tokenizer
from megatron_biollm.tokenizer.tokenizer import TokenizerConfig, build_tokenizer

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def round_trip(folder, work, **options):
    import_from_hf(ConversionConfig(folder, work / "checkpoints", **options))
    export_to_hf(ConversionConfig(work / "checkpoints", work / "out"))
    return work / "out"


def tensors(folder):
    reader = ShardedReader(folder)
    return {name: reader.read(name) for name in reader.names}


def assert_bit_equal(before, after):
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name


def with_tokenizer(model, tokenizer_folder, work):
    folder = shutil.copytree(model, work / "with_tokenizer")
    build_tokenizer(TokenizerConfig(tokenizer_model=str(tokenizer_folder))).save_pretrained(folder)
    return folder


def vocabulary_size(tokenizer_folder):
    return build_tokenizer(TokenizerConfig(tokenizer_model=str(tokenizer_folder))).vocab_size


def rewrite(folder, name, change):
    """Changes one tensor of a folder with a single safetensors file."""
    from safetensors.torch import load_file, save_file

    content = load_file(folder / "model.safetensors")
    content[name] = change(content[name])
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("dtype", "fields"),
    [
        (torch.float32, {}),
        (torch.bfloat16, {}),
        (torch.float32, {"num_key_value_heads": 8}),
        (torch.float32, {"num_key_value_heads": 1}),
        (torch.float32, {"rope_theta": 500000.0}),
    ],
    ids=["grouped queries", "bfloat16", "multi-head", "multi-query", "another RoPE base"],
)
def test_there_and_back_is_bit_equal_with_equal_logits(make_hf, tmp_path, dtype, fields):
    folder = make_hf(dtype, **fields)
    out = round_trip(folder, tmp_path)
    assert_bit_equal(tensors(folder), tensors(out))
    tokens = torch.arange(96).view(2, 48) * 5
    with torch.no_grad():
        before, after = (
            LlamaForCausalLM.from_pretrained(f).float()(tokens).logits for f in (folder, out)
        )
    assert (before - after).abs().max() < 1e-4


def test_the_import_is_a_committed_checkpoint_with_padded_vocabulary(hf_model, tmp_path):
    import_from_hf(ConversionConfig(hf_model, tmp_path))
    step = tmp_path / "step_00000000"
    assert verify.committed_steps(tmp_path) == [0]
    verify.verify_checkpoint(step)
    rows = CheckpointReader(step).read("embedding.word_embeddings.weight")
    assert rows.shape[0] == 1024 and not rows[500:].any()
    assert yaml.safe_load((step / "config.yaml").read_text())["model"]["vocab_size"] == 500


def test_the_export_has_the_tokenizer_and_the_true_vocabulary(make_hf, tokenizer_folder, tmp_path):
    tokens = vocabulary_size(tokenizer_folder)
    folder = with_tokenizer(make_hf(vocab_size=tokens), tokenizer_folder, tmp_path)
    out = round_trip(folder, tmp_path)
    exported = AutoTokenizer.from_pretrained(out)
    assert tensors(out)[EMBED].shape[0] == tensors(out)[HEAD].shape[0] == len(exported) == tokens
    config = json.loads((out / "generation_config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    assert json.loads((out / "tokenizer_manifest.json").read_text())["vocab_size"] == tokens


def test_padding_rows_of_the_input_are_dropped_and_said(make_hf, tokenizer_folder, tmp_path):
    tokens = vocabulary_size(tokenizer_folder)
    folder = with_tokenizer(make_hf(vocab_size=tokens + 54), tokenizer_folder, tmp_path)
    out = round_trip(folder, tmp_path)
    assert torch.equal(tensors(out)[EMBED], tensors(folder)[EMBED][:tokens])
    report = json.loads((tmp_path / "checkpoints/step_00000000/parity.json").read_text())
    assert report["notes"] == ["54 padding rows of the input were dropped"]


def test_added_tokens_start_as_the_mean_of_their_sub_tokens(make_hf, tokenizer_folder, tmp_path):
    tokens = vocabulary_size(tokenizer_folder)
    folder = with_tokenizer(make_hf(vocab_size=tokens), tokenizer_folder, tmp_path)
    known = build_tokenizer(TokenizerConfig(tokenizer_model=str(tokenizer_folder)))
    vocabulary = known.transformers_tokenizer.get_vocab()
    added = next(
        a + b
        for a in "abcde"
        for b in "xyzcrt"
        if {a, b} <= vocabulary.keys() and a + b not in vocabulary
    )
    extend_tokenizer(tokenizer_folder, [added], tmp_path / "extended")
    out = round_trip(folder, tmp_path, tokenizer=tmp_path / "extended")
    (sub_ids,) = load_extension(tmp_path / "extended").sub_ids
    for name in (EMBED, HEAD):
        before, after = tensors(folder)[name], tensors(out)[name]
        assert torch.equal(after[:tokens], before) and after.shape[0] == tokens + 1
        assert torch.allclose(after[tokens], before[sub_ids].mean(0), atol=1e-6)


@pytest.fixture
def sentencepiece_file(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"the patients of clinic {n}" for n in range(50)]),
        model_writer=model,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (tmp_path / "llama.model").write_bytes(model.getvalue())
    return tmp_path / "llama.model"


def test_a_sentencepiece_base_is_extended_beside_its_hugging_face_form(
    make_hf, sentencepiece_file, tmp_path
):
    base = build_tokenizer(TokenizerConfig("Llama2Tokenizer", str(sentencepiece_file)))
    folder = shutil.copytree(make_hf(vocab_size=base.vocab_size), tmp_path / "model")
    base.save_pretrained(folder)
    extend_tokenizer(folder, ["▁ti", "tp"], tmp_path / "extended")
    out = round_trip(folder, tmp_path, tokenizer=tmp_path / "extended")
    sub_ids = load_extension(tmp_path / "extended").sub_ids
    for name in (EMBED, HEAD):
        before, after = tensors(folder)[name], tensors(out)[name]
        assert torch.equal(after[: base.vocab_size], before)
        for row, ids in zip(after[base.vocab_size :], sub_ids, strict=True):
            assert len(ids) == 2 and torch.allclose(row, before[ids].mean(0), atol=1e-6)
    exported = build_tokenizer(TokenizerConfig("Llama2Tokenizer", str(out)))
    assert exported.pieces()[base.vocab_size :] == ["▁ti", "tp"]


def test_an_extension_of_another_base_is_refused(make_hf, sentencepiece_file, tmp_path):
    base = build_tokenizer(TokenizerConfig("Llama2Tokenizer", str(sentencepiece_file)))
    folder = shutil.copytree(make_hf(vocab_size=base.vocab_size), tmp_path / "model")
    base.save_pretrained(folder)
    proto = ModelProto.FromString(sentencepiece_file.read_bytes())
    proto.pieces[-1].piece = "東"
    (tmp_path / "other.model").write_bytes(proto.SerializeToString())
    extend_tokenizer(tmp_path / "other.model", ["▁ti"], tmp_path / "extended")
    with pytest.raises(UserError, match="extends another tokenizer than the one in"):
        import_from_hf(ConversionConfig(folder, tmp_path / "out", tokenizer=tmp_path / "extended"))


def test_a_tokenizer_of_another_model_is_refused(make_hf, tokenizer_folder, tmp_path):
    folder = with_tokenizer(make_hf(vocab_size=2000), tokenizer_folder, tmp_path)
    with pytest.raises(UserError, match="has 2000 rows"):
        import_from_hf(ConversionConfig(folder, tmp_path / "out"))


def test_tied_embeddings_are_copied_apart_and_said(make_hf, tmp_path):
    folder = make_hf(tie_word_embeddings=True)
    assert HEAD not in tensors(folder)
    out = tensors(round_trip(folder, tmp_path))
    assert torch.equal(out[HEAD], out[EMBED]) and torch.equal(out[EMBED], tensors(folder)[EMBED])
    report = json.loads((tmp_path / "checkpoints/step_00000000/parity.json").read_text())
    assert "tied embeddings were copied apart" in report["notes"]


def test_another_dtype_is_compared_in_that_dtype(hf_model, tmp_path):
    import_from_hf(ConversionConfig(hf_model, tmp_path / "ck"))
    report = export_to_hf(ConversionConfig(tmp_path / "ck", tmp_path / "out", dtype="bfloat16"))
    assert report["weights_compared_in"] == "bfloat16" and report["passed"]
    wanted = {name: tensor.bfloat16() for name, tensor in tensors(hf_model).items()}
    assert_bit_equal(wanted, tensors(tmp_path / "out"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_bias": True}, "attention_bias=True"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_type='llama3'"),
        ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"head_dim": 16}, "head_dim=16"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_hidden_layers": 5}, "lacks .*layers.4"),
        ({"intermediate_size": 192}, "config.json says"),
    ],
)
def test_a_model_that_would_compute_something_else_is_refused(hf_model, tmp_path, fields, message):
    folder = shutil.copytree(hf_model, tmp_path / "changed")
    edit_config(folder, **fields)
    with pytest.raises(UserError, match=message):
        import_from_hf(ConversionConfig(folder, tmp_path / "out"))
    assert_nothing_kept(tmp_path / "out")


def test_fewer_key_value_heads_than_tensor_parallel_ranks_are_refused(hf_model, tmp_path):
    parallel = ParallelConfig(tensor_model_parallel_size=4)
    with pytest.raises(UserError, match="num_query_groups=2 is not divisible by .*size=4"):
        import_from_hf(ConversionConfig(hf_model, tmp_path / "out", parallel=parallel))
    assert_nothing_kept(tmp_path / "out")


def test_pickled_weights_are_refused_unread(hf_model, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(hf_model / "config.json", folder)
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights .* can run code"):
        import_from_hf(ConversionConfig(folder, tmp_path / "out"))


def test_nan_weights_are_refused_in_both_directions(make_hf, tmp_path):
    folder = make_hf(max_shard_size="1GB")
    rewrite(folder, "model.norm.weight", lambda w: w.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(UserError, match=r"model.norm.weight holds NaN"):
        import_from_hf(ConversionConfig(folder, tmp_path / "out"))
    assert_nothing_kept(tmp_path / "out")


def test_a_truncated_shard_is_refused(hf_model, tmp_path):
    folder = shutil.copytree(hf_model, tmp_path / "torn")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        import_from_hf(ConversionConfig(folder, tmp_path / "out"))
    assert_nothing_kept(tmp_path / "out")


def test_a_checkpoint_with_one_changed_byte_is_not_exported(hf_model, tmp_path):
    import_from_hf(ConversionConfig(hf_model, tmp_path / "ck"))
    file = max((tmp_path / "ck/step_00000000").glob("*.distcp"), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file.name} was changed"):
        export_to_hf(ConversionConfig(tmp_path / "ck", tmp_path / "out"))
    assert_nothing_kept(tmp_path / "out")


def test_without_parity_nothing_is_kept(hf_model, tmp_path, monkeypatch):
    import_from_hf(ConversionConfig(hf_model, tmp_path / "ck"))
    # As a wrong table would: k and v of every layer change places on their way out.
    from megatron_biollm.conversion import to_hf

    right = to_hf.segments

    def wrong(block, sizes):
        order = (0, 2, 1) if block.weight.mapping.by_group else (0, 1)
        return (replace(each, part=order[each.part]) for each in right(block, sizes))

    monkeypatch.setattr(to_hf, "segments", wrong)
    with pytest.raises(UserError, match="no parity.*depart at layer 0"):
        export_to_hf(ConversionConfig(tmp_path / "ck", tmp_path / "out"))
    assert_nothing_kept(tmp_path / "out")


def test_a_full_disk_leaves_nothing(hf_model, tmp_path):
    # The limit on a file's size stands for a full disk: the write fails in the same way.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(UserError, match="nothing was kept"):
            import_from_hf(ConversionConfig(hf_model, tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert_nothing_kept(tmp_path / "out")


def test_an_existing_output_is_never_replaced(hf_model, tmp_path):
    import_from_hf(ConversionConfig(hf_model, tmp_path))
    with pytest.raises(UserError, match="step_00000000 exists"):
        import_from_hf(ConversionConfig(hf_model, tmp_path))


def assert_nothing_kept(output):
    """No output, and no hidden remains of one."""
    assert not output.exists() or not list(output.iterdir())
    assert not list(output.parent.glob(f".{output.name}*"))
