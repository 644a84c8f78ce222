"""Micro-batches and ranks with unequal token counts: the gradient is that of the global mean."""

import pytest
import torch

from tests.integration.hugging_face import llama, summed_token_loss, to_hugging_face
from tests.integration.small_run import SmallRun, build_trainer, micro_batches

PP = {"pipeline_model_parallel_size": 2}
CP = {"context_parallel_size": 2}
# Whole gradients on every rank of the data-parallel group, to compare them.
WHOLE = {"use_distributed_optimizer": False}


def unequal(run, rank, size):
    """Micro-batch k of the global batch has 1 + 9 k tokens that count in each sequence."""
    for step, batch in enumerate(micro_batches(run, rank, size)):
        batch["loss_mask"] = torch.zeros_like(batch["loss_mask"])
        batch["loss_mask"][:, -(1 + 9 * (step * size + rank)) :] = 1.0
        yield batch


def reduced_gradients(run):
    """The gradients that the optimizer would use, by the global names of the weights."""
    trainer = build_trainer(run)
    dp, gradients = trainer.model.groups.dp, {}
    trainer.optimizer.step = lambda: (True, 0.0, 0)
    batches = unequal(run, dp.rank(), dp.size())
    trainer.train_step(batches, run.global_batch_size // (run.micro_batch_size * dp.size()))
    for chunk in trainer.model.bare_chunks:
        first = chunk.decoder.layers[0].layer_number - 1
        for name, parameter in chunk.named_parameters():
            parts = name.split(".")
            if parts[1] == "layers":
                parts[2] = str(int(parts[2]) + first)
            gradients[".".join(parts)] = parameter.main_grad.clone()
    return gradients


def initial_weights(run):
    chunk = build_trainer(run).model.bare_chunks[0]
    weights = {name: value.detach().clone() for name, value in chunk.named_parameters()}
    return to_hugging_face(weights, run.sizes)


@pytest.fixture(scope="module")
def batches():
    run = SmallRun()
    rows = unequal(run, 0, 1)
    return [next(rows) for _ in range(run.global_batch_size // run.micro_batch_size)]


@pytest.fixture(scope="module")
def plain(world, batches):
    """The plain PyTorch model over the concatenated batch: name of each weight to its gradient."""
    model = llama(SmallRun().sizes, world.run(1, initial_weights, SmallRun())[0])
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    (summed_token_loss(model, whole) / whole["loss_mask"].sum()).backward()
    return model, {name: p.grad.clone() for name, p in model.named_parameters()}


def deviation(gradients, expected):
    """The norm of the difference over the norm of the expected gradient, all weights together."""
    difference = sum((gradients[name] - expected[name]).square().sum() for name in expected)
    return (difference / sum(value.square().sum() for value in expected.values())).sqrt().item()


@pytest.mark.parametrize(
    ("size", "parallel"),
    [(1, {}), (2, {}), (4, {}), (2, PP), (2, CP), (4, CP), (4, PP)],
    ids=["one process", "DP2", "DP4", "PP2", "CP2", "CP2xDP2", "PP2xDP2"],
)
def test_the_gradient_is_that_of_the_global_mean(world, plain, size, parallel, request):
    run = SmallRun(parallel | WHOLE)
    gradients = {}
    for rank in reversed(world.run(size, reduced_gradients, run)):
        gradients |= rank
    found = deviation(to_hugging_face(gradients, run.sizes), plain[1])
    print(f"{request.node.name}: {found:.1e}")
    assert found < 1e-5


def test_the_mean_of_micro_batch_means_would_be_another_gradient(plain, batches):
    model, expected = plain
    model.zero_grad()
    for batch in batches:
        (summed_token_loss(model, batch) / batch["loss_mask"].sum() / len(batches)).backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    assert deviation(found, expected) > 0.1
