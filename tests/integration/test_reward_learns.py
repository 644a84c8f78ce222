"""The reward recipe learns what people preferred: on pairs made up here, and on real ones."""

import itertools
import json
from pathlib import Path

import pytest

from megatron_biollm.finetune.mediqa import mediqa_pairs
from megatron_biollm.finetune.preferences import read_pairs
from megatron_biollm.recipes.score import rank_pairs
from megatron_biollm.tokenizer.train import train_tokenizer
from tests.integration.recipe import rows
from tests.integration.sft_run import finetune_here

REAL = Path(__file__).parents[3] / "shared/data/benchmarks/align_mediqa2019_qa"
QUESTIONS = {
    "What are the treatments for gout?": "Ice and rest ease an attack, and colchicine shortens it.",
    "What causes scurvy?": "Scurvy comes from too little vitamin C over several weeks.",
    "Is measles contagious?": "Measles spreads through the air and stays there for two hours.",
    "How is anaemia found?": "A blood count shows few red cells or little haemoglobin.",
}


def made_up() -> list[dict]:
    """Each question with its own answer, beside the answer to another question."""
    return [
        {
            "prompt": [{"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": QUESTIONS[question]}],
            "rejected": [{"role": "assistant", "content": QUESTIONS[other]}],
        }
        for question, other in itertools.permutations(QUESTIONS, 2)
    ]


def real() -> list[dict]:
    """The first pairs of twelve questions of the MEDIQA 2019 training set."""
    pairs = mediqa_pairs(REAL / "MEDIQA2019-Task3-QA-TrainingSet1-LiveQAMed.xml.gz")
    return list(itertools.islice(pairs, 12))


def scores_of(checkpoint: Path, conversations: list) -> list[float]:
    from megatron_biollm.recipes.score import score

    return score(checkpoint, conversations, "cpu")


@pytest.mark.parametrize(
    "pairs_of",
    [
        made_up,
        pytest.param(
            real,
            marks=pytest.mark.skipif(
                not REAL.is_dir(), reason="needs the MEDIQA 2019 files beside the checkout"
            ),
        ),
    ],
)
def test_a_tiny_reward_model_ranks_every_pair_that_it_was_trained_on(world, tmp_path, pairs_of):
    file, made = tmp_path / "pairs.jsonl", pairs_of()
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    words = {row[name][0]["content"] for row in made for name in ("prompt", "chosen", "rejected")}
    train_tokenizer(sorted(words), 512, tmp_path / "tokenizer")
    options = {
        "run_dir": tmp_path / "run",
        "data.train_data_path": f"[{file}]",
        "data.too_long": "cut",
        "tokenizer.tokenizer_model": tmp_path / "tokenizer",
        "finetune.recipe": "reward",
        "model.num_layers": 2,
        "model.hidden_size": 32,
        "model.num_attention_heads": 2,
        "model.ffn_hidden_size": 64,
        "model.seq_length": 160,
        "optimizer.lr": 5e-3,
        "training.micro_batch_size": len(made),
        "training.global_batch_size": len(made),
        "training.train_iters": 40,
        "training.device": "cpu",
        "logging.tensorboard": "false",
    }
    overrides = [f"{name}={value}" for name, value in options.items()]
    assert world.run(1, finetune_here, overrides, joined=False) == [40]
    log = rows(tmp_path / "run")
    assert log[1]["accuracy"] < 1.0 == log[40]["accuracy"]
    pairs = read_pairs(file)
    said = [[*pair.prompt, *answer] for pair in pairs for answer in pair.answers]
    (scores,) = world.run(1, scores_of, tmp_path / "run", said, joined=False)
    report = rank_pairs(pairs, scores)
    assert report["longer_wins"] < 1.0 == report["accuracy"]
