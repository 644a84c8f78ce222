import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.live_model import LiveModel
from megatron_biollm.evaluation.offline import prepare_lm_eval
from megatron_biollm.evaluation.plan import Plan, prepare
from megatron_biollm.evaluation.verdict import tally_of
from tests.evaluation.quiz import DRUGS, QUIZ, write_files
from tests.generation import small_model
from tests.generation.small_model import layout

pytest.importorskip("lm_eval", reason="tasks are of lm-eval, of the eval extra")

TASK = """
task: signs
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}} Answer:"
doc_to_choice: [liver, heart, kidney, brain]
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("data"))


def harness_model(folder, parallel):
    from megatron_biollm.evaluation.harness import HarnessModel

    return HarnessModel(LiveModel(small_model.build_generator(folder, parallel)))


def of_hf(export):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(export), device="cpu", dtype="float32", batch_size=1)


def plans(data):
    return [
        Plan([QUIZ, DRUGS], data, Asking(num_fewshot=1)),
        Plan([QUIZ], data, Asking(continuation="letter", normalise="characters")),
        Plan([QUIZ], data, Asking(method="generate", max_gen_toks=8)),
    ]


def answers_by(model, data):
    prepare_lm_eval()
    return [
        (run.file, answers)
        for plan in plans(data)
        for one in prepare(plan)
        for run in one.runs
        for answers in [one.ask(model, run)[1]]
    ]


def answers_in(folder, parallel, data):
    return answers_by(harness_model(folder, parallel), data)


def test_answers_and_scores_are_those_of_hf_on_the_export(world, tokenizer_folder, export, data):
    expected = answers_by(of_hf(export), data)
    for size, parallel in [(1, layout()), (2, layout())]:
        for found in world.run(size, answers_in, tokenizer_folder, parallel, data):
            for (name, ours), (_, theirs) in zip(found, expected, strict=True):
                assert [one.prediction for one in ours] == [one.prediction for one in theirs], name
                assert [one.texts for one in ours] == [one.texts for one in theirs]
                for one, other in zip(ours, theirs, strict=True):
                    assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-4)


def chains_of_thought(folder, parallel, data):
    model = harness_model(folder, parallel)
    prepare_lm_eval()
    asking = Asking(method="cot", samples=3, max_gen_toks=6, seed=2)
    (one,) = prepare(Plan([QUIZ], data, asking, limit=3))
    return one.ask(model, one.runs[0])[1]


def test_several_chains_of_thought_are_sampled_alike_in_every_layout(world, tokenizer_folder, data):
    (alone,) = world.run(1, chains_of_thought, tokenizer_folder, layout(), data)
    assert all(len(set(one.texts)) == 3 for one in alone)
    for found in world.run(2, chains_of_thought, tokenizer_folder, layout(), data):
        assert found == alone


def test_examples_that_do_not_fit_are_left_out_before_anything_is_cut(data):
    prepare_lm_eval()
    from megatron_biollm.evaluation.tasks import Asked, BenchmarkTask, Room

    (one,) = prepare(Plan([QUIZ], data, Asking(num_fewshot=4)))
    asking = one.runs[0].asking
    asked = Asked(QUIZ, one.items, one.conventions, asking, one.examples(asking))
    lengths = [
        len(prompt) for prompt in prompts(BenchmarkTask(asked, Room(lambda text, _: True, 8)))
    ]
    task = BenchmarkTask(asked, Room(lambda text, _: len(text) < min(lengths) - 100, 8))
    shown = [prompt.count("Question:") - 1 for prompt in prompts(task)]
    assert set(shown) == {2} and task.shortened == len(shown) and not task.too_long
    assert all(prompt.startswith("Answer well.\n\n") for prompt in prompts(task))
    task = BenchmarkTask(asked, Room(lambda text, _: False, 8))
    assert {prompt.count("Question:") for prompt in prompts(task)} == {1}
    assert task.too_long == len(shown)


def prompts(task):
    return [task.prompt(item) for item in task.asked.items]


def scored_by_yaml(folder, parallel, include_path):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    model = harness_model(folder, parallel)
    tasks = TaskManager(include_path=include_path, include_defaults=False)
    found = simple_evaluate(model=model, tasks=["signs"], task_manager=tasks, bootstrap_iters=0)
    return found and found["results"]["signs"]


def test_a_stock_task_of_lm_eval_runs_offline(world, tokenizer_folder, export, data, tmp_path):
    (tmp_path / "signs.yaml").write_text(TASK.format(file=data / "quiz" / "test.jsonl"))
    prepare_lm_eval()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    expected = simple_evaluate(
        model=of_hf(export), tasks=["signs"], task_manager=tasks, bootstrap_iters=0
    )
    # lm-eval itself tells its results on the first process alone.
    found, _ = world.run(2, scored_by_yaml, tokenizer_folder, layout(pp=2), str(tmp_path))
    assert found["acc,none"] == expected["results"]["signs"]["acc,none"]
    assert json.dumps(found) == json.dumps(expected["results"]["signs"])


def conversations_with(model, data):
    prepare_lm_eval()
    found = []
    for method in ("likelihood", "generate"):
        asking = Asking(method=method, chat=True, num_fewshot=1, max_gen_toks=16)
        (one,) = prepare(Plan([QUIZ], data, asking, limit=6))
        found += one.ask(model, one.runs[0])[1]
    return found


def conversations(folder, data):
    return conversations_with(harness_model(folder, layout()), data)


def test_conversations_are_those_of_hf_with_the_models_own_template(
    world, chat_tokenizer_folder, chat_export, data
):
    expected = conversations_with(of_hf(chat_export), data)
    (found,) = world.run(1, conversations, chat_tokenizer_folder, data)
    assert all(one.prompt.startswith("<s>") for one in found[:3])
    assert [one.texts for one in found] == [one.texts for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.prompt == theirs.prompt
        assert ours.log_likelihoods == pytest.approx(theirs.log_likelihoods, abs=1e-4)


def test_a_model_without_a_template_has_no_conversations(world, tokenizer_folder, data):
    (message,) = world.run(1, refusal_of_chat, tokenizer_folder, data)
    assert "no chat template" in message


def refusal_of_chat(folder, data):
    model = harness_model(folder, layout())
    prepare_lm_eval()
    (one,) = prepare(Plan([QUIZ], data, Asking(chat=True)))
    with pytest.raises(UserError) as error:
        one.ask(model, one.runs[0])
    return str(error.value)


def test_a_task_scores_as_the_benchmark_does(world, tokenizer_folder, data, tmp_path):
    assert world.run(1, both_scores, tokenizer_folder, data, tmp_path) == [True]


def both_scores(folder, data, tmp_path):
    from megatron_biollm.evaluation.answers import Answers
    from megatron_biollm.evaluation.tasks import Asked, ask

    prepare_lm_eval()
    (one,) = prepare(Plan([QUIZ], data))
    run = one.runs[0]
    asked = Asked(QUIZ, one.items, one.conventions, run.asking, one.examples(run.asking))
    found, task = ask(harness_model(folder, layout()), asked)
    answers = Answers(tmp_path, {"name": "model"})
    answers.add(run, found)
    return task.aggregation()["answer"](found) == tally_of(answers, run, one).value()
