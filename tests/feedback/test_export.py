import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.feedback.export import export
from megatron_biollm.feedback.importing import import_file
from megatron_biollm.feedback.verdicts import Filters, majority
from megatron_biollm.finetune.conversations import read_conversations
from megatron_biollm.finetune.preferences import read_labelled, read_pairs
from tests.feedback.project import pair, read_lines

BEST, WORST = {"strength": "3"}, {"category_a": "other", "category_b": "other"}


def say(project, name, item_id, verdict, **more):
    """Judges an item in the item's own order, whatever side the answers were shown on."""
    visitor = project.visitor(name)
    while (address := visitor.next()) and not address.endswith(f"/{item_id}"):
        visitor.save(address, {"action": "later"})
    place = project.row(
        "SELECT left_position FROM assignment WHERE item_id = ? AND annotator_id = ?",
        item_id, project.account(name)["id"],
    )[0]  # fmt: skip
    letters = dict(zip(("first", "second"), "ab" if place == 0 else "ba", strict=True))
    fields = {"preference": letters.get(verdict, verdict), "strength": "2"}
    for key, value in more.items():
        key, _, side = key.partition("__")
        fields[f"{key}_{letters[side]}" if side else key] = letters.get(value, value)
    assert visitor.save(address, fields).status_code == 302


def write(project, tmp_path, form="preference", **filters):
    path = tmp_path / "out.jsonl"
    done = export(project.connection, path, form, Filters(**filters), overwrite=True)
    return done, read_lines(path) if form != "label-studio" else json.loads(path.read_text())


def test_a_preference_is_trls_row_whatever_side_was_shown_left(make_project, tmp_path):
    project = make_project([pair(n) for n in range(10)])
    for item_id in range(1, 11):
        say(project, "Ada", item_id, "second", strength="3")
    done, rows = write(project, tmp_path)
    assert {row[0] for row in project.rows("SELECT left_position FROM judgement")} == {0, 1}
    assert done.rows == 10 and done.wins == {"model-two": [10, 0], "model-one": [0, 10]}
    assert rows[0]["prompt"] == [{"role": "user", "content": "question 0"}]
    for number, row in enumerate(rows):
        assert row["chosen"] == [{"role": "assistant", "content": f"second {number}"}]
        assert row["rejected"] == [{"role": "assistant", "content": f"first {number}"}]
        assert row["margin"] == 3.0
        assert row["meta"]["models"] == {"chosen": "model-two", "rejected": "model-one"}


def test_models_are_named_by_the_export_alone(make_project, tmp_path):
    project = make_project()
    visitor = project.visitor("Judge")
    pages = "".join(visitor.get(a).text for a in ("/", "/progress", "/adjudication", "/mine"))
    assert "model-one" not in pages


@pytest.mark.parametrize(
    ("verdict", "more", "reason"),
    [
        ("tie", {}, "tie"),
        ("both_unsafe", WORST, "both unsafe"),
        ("first", {"category__first": "other"}, "chosen answer flagged as unsafe"),
        ("cannot_judge", {}, "too few judgements"),
    ],
)
def test_what_makes_no_pair_is_counted_with_its_reason(
    make_project, tmp_path, verdict, more, reason
):
    project = make_project([pair(0), pair(1)])
    say(project, "Ada", 1, verdict, **more)
    say(project, "Ada", 2, "first")
    done, rows = write(project, tmp_path)
    assert len(rows) == 1 and done.left_out == {reason: 1}


def test_an_unsafe_rejected_answer_makes_a_pair_and_an_unsafe_chosen_one_on_request(
    make_project, tmp_path
):
    project = make_project([pair(0), pair(1)])
    say(project, "Ada", 1, "first", category__second="other")
    say(project, "Ada", 2, "first", category__first="other")
    assert len(write(project, tmp_path)[1]) == 1
    assert len(write(project, tmp_path, allow_unsafe=True)[1]) == 2


def test_filters_on_agreement_number_specialty_and_adjudication(make_project, tmp_path):
    project = make_project([pair(0), pair(1)], double_share=1.0)
    for name, verdict in (("Ada", "first"), ("Ben", "second")):
        say(project, name, 1, verdict)
    say(project, "Ada", 2, "first")
    say(project, "Ben", 2, "first")
    done, rows = write(project, tmp_path)
    assert len(rows) == 1 and done.left_out == {"no majority": 1}
    assert len(write(project, tmp_path, specialties=("ADA'S FIELD",))[1]) == 2
    assert len(write(project, tmp_path, min_judgements=2)[1]) == 1
    with pytest.raises(UserError, match="nothing to export"):
        write(project, tmp_path, adjudicated=True)
    say(project, "Judge", 1, "second")
    done, rows = write(project, tmp_path, adjudicated=True)
    assert len(rows) == 1 and rows[0]["meta"]["adjudicated"]
    assert rows[0]["chosen"][0]["content"] == "second 0"
    assert len(write(project, tmp_path, min_agreement=1.0)[1]) == 2


def test_gold_items_and_data_sets_stay_out_unless_asked_for(make_project, tmp_path):
    project = make_project([pair(0, gold="first"), pair(1)])
    project.visitor("Ada").judge_all({"preference": "a", "strength": "1"})
    row = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    import_file(project.connection, tmp_path / "set.jsonl", 0.0)
    done, rows = write(project, tmp_path)
    assert len(rows) == 1 and done.left_out == {"gold item": 1, "not judged": 1}
    assert len(write(project, tmp_path, with_gold=True)[1]) == 2
    rows = write(project, tmp_path, with_datasets=True)[1]
    assert rows[-1]["chosen"][0]["content"] == "good" and len(rows) == 2


def test_a_corrected_answer_is_chosen_over_what_it_corrects_and_trains(make_project, tmp_path):
    project = make_project([pair(0), pair(1), pair(2)])
    say(project, "Ada", 1, "first", correction="better", correction_base="second")
    say(project, "Ada", 2, "both_unsafe", **WORST, correction="own")
    say(project, "Ada", 3, "first", correction="own")
    _, rows = write(project, tmp_path)
    pairs = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert pairs == [
        ("first 0", "second 0"), ("better", "second 0"),
        ("own", "first 1"), ("own", "second 1"),
        ("first 2", "second 2"), ("own", "first 2"),
    ]  # fmt: skip
    assert len({row["id"] for row in rows}) == 6
    _, rows = write(project, tmp_path, "conversations")
    assert [row["messages"][-1]["content"] for row in rows] == ["better", "own", "own"]
    assert rows[0]["messages"][0] == {"role": "user", "content": "question 0"}


def test_kto_labels_single_answers(make_project, tmp_path):
    project = make_project([pair(0), pair(1)])
    say(project, "Ada", 1, "first", correction="better")
    say(project, "Ada", 2, "both_unsafe", **WORST)
    _, rows = write(project, tmp_path, "kto")
    labels = {row["completion"][0]["content"]: row["label"] for row in rows}
    assert labels == {
        "first 0": True, "second 0": False, "better": True, "first 1": False, "second 1": False,
    }  # fmt: skip


def test_what_is_exported_is_what_the_fine_tuning_reads(make_project, tmp_path):
    project = make_project([pair(0), pair(1)])
    say(project, "Ada", 1, "first", strength="3", correction="better", correction_base="first")
    say(project, "Ada", 2, "second")
    paths = {form: tmp_path / f"{form}.jsonl" for form in ("preference", "kto", "conversations")}
    for form, path in paths.items():
        export(project.connection, path, form)
    pairs = read_pairs(paths["preference"])
    assert [(p.chosen[-1]["content"], p.rejected[-1]["content"]) for p in pairs] == [
        ("first 0", "second 0"), ("better", "first 0"), ("second 1", "first 1"),
    ]  # fmt: skip
    assert len(read_labelled(paths["kto"])) == 5
    (conversation,) = read_conversations(paths["conversations"])
    assert conversation.messages[-1] == {"role": "assistant", "content": "better"}


def test_label_studio_and_back_says_the_same(make_project, tmp_path):
    project = make_project([pair(n) for n in range(4)], double_share=1.0)
    say(project, "Ada", 1, "second", strength="3", category__first="wrong_dose",
        error__second="1", rationale="why\nso", correction="better")  # fmt: skip
    say(project, "Ben", 1, "tie")
    say(project, "Ada", 2, "both_unsafe", **WORST)
    say(project, "Ada", 3, "cannot_judge")
    write(project, tmp_path, "label-studio")
    (tmp_path / "other").mkdir()
    other = type(project)(tmp_path / "other", [], {})
    import_file(other.connection, tmp_path / "out.jsonl", 0.0)
    columns = (
        "name, preference, strength, category_first, category_second, error_first, error_second, "
        "rationale, correction, unsafe_first, unsafe_second"
    )
    query = f"SELECT text, {columns} FROM opinion JOIN answer USING (item_id) ORDER BY 1, 2"
    assert [tuple(r) for r in other.rows(query)] == [tuple(r) for r in project.rows(query)]
    other.connection.close()


def test_nothing_stands_in_the_way_of_an_existing_file(make_project, tmp_path):
    project = make_project()
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export(project.connection, path)
    with pytest.raises(UserError, match="4 not judged"):
        export(project.connection, path, overwrite=True)
    assert path.read_text() == "mine" and len(list(tmp_path.glob("*out*"))) == 1
    with pytest.raises(UserError, match="give one of"):
        export(project.connection, tmp_path / "new", "csv")
    with pytest.raises(UserError, match="min_agreement is 2"):
        Filters(min_agreement=2)


def test_majorities():
    assert majority(["a", "a", "b"]) == ("a", pytest.approx(2 / 3))
    assert majority(["a", "b"]) == (None, 0.5)
    assert majority([]) == (None, None)


@pytest.mark.slow
def test_the_export_feeds_trls_dpo_trainer_unchanged(make_project, tmp_path):
    trl = pytest.importorskip("trl", reason="the dev extra has trl")
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM

    project = make_project([pair(n) for n in range(4)])
    say(project, "Ada", 1, "first", correction="better")
    for item_id in (2, 3, 4):
        say(project, "Ada", item_id, "second")
    export(project.connection, tmp_path / "pairs.jsonl")
    dataset = load_dataset("json", data_files=str(tmp_path / "pairs.jsonl"), split="train",
                           cache_dir=str(tmp_path / "cache"))  # fmt: skip
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=256, eos_token_id=257, pad_token_id=258,
    )  # fmt: skip
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "dpo"), per_device_train_batch_size=5, max_steps=1,
        learning_rate=1e-3, use_cpu=True, report_to=[], logging_steps=1, save_strategy="no",
        bf16=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=LlamaForCausalLM(config), ref_model=LlamaForCausalLM(config), args=arguments,
        train_dataset=dataset, processing_class=byte_tokenizer(),
    )  # fmt: skip
    assert len(trainer.train_dataset) == 5
    trainer.train()
    (row,) = [row for row in trainer.state.log_history if "rewards/margins" in row]
    assert row["loss"] > 0


def byte_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(alphabet)}
    for token in ("<s>", "</s>", "<pad>", "<unk>"):
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return fast
