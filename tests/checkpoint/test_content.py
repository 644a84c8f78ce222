"""What a rank puts into a checkpoint is core's own content, without gathering or copying it."""

import math

import pytest
import torch

from megatron_biollm.checkpoint.content import (
    boxes,
    bucket_layout,
    content_to_load,
    content_to_save,
    model_content,
    own_state,
    sharding,
    with_own_storage,
)
from megatron_biollm.checkpoint.formats import FAST, RESHARDABLE
from tests.integration.small_run import SmallRun, build_trainer, train_steps

LAYOUTS = {
    "DP2": {},
    "TP2": {"tensor_model_parallel_size": 2},
    "PP2": {"pipeline_model_parallel_size": 2},
}


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (5, 1, 3), (1, 6)])
def test_boxes_are_the_range_in_its_order(shape):
    size = math.prod(shape)
    whole = torch.arange(size).reshape(shape)
    for start in range(size + 1):
        for stop in range(start, size + 1):
            found = []
            for offsets, sizes in boxes(shape, start, stop):
                where = tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))
                found += whole[where].flatten().tolist()
            assert found == list(range(start, stop))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_a_part_of_a_buffer_gets_a_storage_that_ends_where_it_does(dtype):
    buffer = torch.arange(24).to(dtype)
    part = with_own_storage(buffer[6:18].view(3, 4))
    assert part.untyped_storage().nbytes() == part.nbytes
    assert part.data_ptr() == buffer[6:].data_ptr() and torch.equal(part, buffer[6:18].view(3, 4))


def own_and_cores_state(parallel, bf16, steps):
    """The optimizer state of this rank by key and place, as described here and as core does."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import (
        ShardedTensor,
        apply_factories,
        is_main_replica,
    )

    run = SmallRun(parallel=parallel, bf16=bf16, steps=steps)
    trainer = build_trainer(run)
    train_steps(trainer, run)

    def placed(content):
        apply_factories(content)
        items = [i for i in nested_values(content["optimizer"]) if isinstance(i, ShardedTensor)]
        return [
            (i.key, i.global_shape, i.global_slice(), i.data.clone())
            for i in items
            if is_main_replica(i.replica_id)
        ]

    content = model_content(trainer.model)
    gathered = trainer.optimizer.sharded_state_dict(content, metadata=sharding(RESHARDABLE))
    own = content_to_save(trainer.model, trainer.optimizer, RESHARDABLE)
    return placed(own), placed({"optimizer": gathered})


def assembled(shares):
    """Whole tensors; every element must be written exactly once."""
    whole, written = {}, {}
    for key, shape, where, values in (entry for share in shares for entry in share):
        tensor = whole.setdefault(key, torch.full(shape, math.nan))
        tensor[where] = values.reshape(tensor[where].shape)
        written.setdefault(key, torch.zeros(shape, dtype=torch.int))[where] += 1
    assert all(bool((count == 1).all()) for count in written.values())
    return whole


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_what_the_ranks_own_is_together_what_core_would_gather(world, name, bf16):
    shares = world.run(2, own_and_cores_state, LAYOUTS[name], bf16, 2)
    own, gathered = (assembled(side) for side in zip(*shares, strict=True))
    assert own.keys() == gathered.keys() and len(own) == 27
    for key, values in gathered.items():
        assert torch.equal(own[key], values), key


def memory_of_content(kind, loading):
    """How much of the content's tensors lies in memory that was not there before it was built."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor

    run = SmallRun(steps=1)
    trainer = build_trainer(run)
    train_steps(trainer, run)
    (part,) = getattr(trainer.optimizer, "chained_optimizers", [trainer.optimizer])
    live = [state for states in part.optimizer.state.values() for state in states.values()]
    live += [parameter.data for chunk in trainer.model.chunks for parameter in chunk.parameters()]
    storages = [t.untyped_storage() for t in live if torch.is_tensor(t)]
    spans = [(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in storages]
    with own_state(trainer.optimizer):
        content = (content_to_load if loading else content_to_save)(
            trainer.model, trainer.optimizer, kind
        )
    tensors = [i.data for i in nested_values(content) if isinstance(i, ShardedTensor)]
    inside = [any(a <= t.data_ptr() and t.data_ptr() + t.nbytes <= b for a, b in spans)
              for t in tensors]  # fmt: skip
    new = sum(t.nbytes for t, known in zip(tensors, inside, strict=True) if not known)
    return new / sum(t.nbytes for t in tensors)


@pytest.mark.parametrize("loading", [False, True])
@pytest.mark.parametrize("kind", [RESHARDABLE, FAST])
def test_nothing_is_copied(world, kind, loading):
    """But for the padding between parameters, which core writes in fast checkpoints."""
    assert all(new < 0.001 for new in world.run(2, memory_of_content, kind, loading))


def layout_of(parallel, **model):
    trainer = build_trainer(SmallRun(parallel=parallel, model=model))
    return bucket_layout(trainer.model, trainer.optimizer)


def test_the_bucket_layout_depends_on_the_degrees_and_not_on_data_parallelism(world):
    (one,) = world.run(1, layout_of, {})
    assert world.run(2, layout_of, {}) == [one, one]
    tensor = world.run(2, layout_of, {"tensor_model_parallel_size": 2})
    pipeline = world.run(2, layout_of, {"pipeline_model_parallel_size": 2})
    plain = world.run(1, layout_of, {"use_distributed_optimizer": False})
    assert len({one, *tensor, *pipeline, *plain}) == 6
    assert plain[0][0] == ""


def weights_and_main_parameters():
    """The saved weights of a rank, and the parameters that its optimizer owns, by key and place."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor

    overlap = {"overlap_grad_reduce": True, "overlap_param_gather": True}
    run = SmallRun(parallel=overlap, steps=2)
    trainer = build_trainer(run)
    train_steps(trainer, run)
    content = content_to_save(trainer.model, trainer.optimizer, RESHARDABLE)
    items = [i for i in nested_values(content) if isinstance(i, ShardedTensor)]
    weights = {i.key: i.data.clone() for i in items if not i.key.startswith("optimizer.")}
    owned = [i for i in items if i.key.startswith("optimizer.state.param.")]
    places = [(i.key, i.global_shape, i.global_slice(), i.data.clone()) for i in owned]
    return weights, places


def test_weights_that_are_gathered_in_the_next_step_are_saved_as_they_are_now(world):
    shares = world.run(2, weights_and_main_parameters)
    main = assembled([places for _, places in shares])
    for weights, _ in shares:
        for key, values in weights.items():
            if f"optimizer.state.param.{key}" in main and "layers" not in key:
                assert torch.equal(values, main[f"optimizer.state.param.{key}"]), key
    first, second = (weights for weights, _ in shares)
    assert all(torch.equal(first[key], second[key]) for key in first)
