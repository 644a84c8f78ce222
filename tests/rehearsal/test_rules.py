"""What ranks must agree on, and who is named when they do not."""

from megatron_biollm.parallel.layout import ParallelConfig
from megatron_biollm.rehearsal import rules
from megatron_biollm.rehearsal.memory import PeakMemory
from megatron_biollm.rehearsal.rank import RankReport
from megatron_biollm.rehearsal.traffic import Call

PIPELINE = ParallelConfig(pipeline_model_parallel_size=2)


def report(rank, calls=(), members=None):
    alone = {"tp": [rank], "cp": [rank], "dp": [rank], "pp": [0, 1]}
    place = {"tp": 0, "cp": 0, "dp": 0, "pp": rank}
    return RankReport(rank, place, members or alone, calls=list(calls))


def test_a_rank_knows_its_place():
    parallel = ParallelConfig(tensor_model_parallel_size=8, pipeline_model_parallel_size=8)
    place = rules.coordinates_of(parallel, 256, 45)
    assert rules.describe_rank(45, place) == "rank 45 (tp5 cp0 dp1 pp1)"


def test_the_same_collectives_in_the_same_order_are_fine():
    calls = [Call("pp", "all_reduce", 8), Call("pp", "broadcast", 4)]
    assert list(rules.check_order([report(0, calls), report(1, calls)])) == []


def test_another_order_names_both_ranks_and_the_first_difference():
    calls = [Call("pp", "all_reduce", 8), Call("pp", "broadcast", 4)]
    (broken,) = rules.check_order([report(0, calls), report(1, calls[::-1])])
    assert broken.rank == 1
    assert broken.found.startswith(
        "collective 1 of its pp group is broadcast of 4 bytes, but rank 0"
    )
    assert "or they hang" in broken.rule


def test_another_size_or_a_missing_collective_is_found():
    calls = [Call("pp", "all_reduce", 8)]
    (size,) = rules.check_order([report(0, calls), report(1, [Call("pp", "all_reduce", 16)])])
    assert "all_reduce of 16 bytes" in size.found
    (missing,) = rules.check_order([report(0, calls), report(1)])
    assert "collective 1 of its pp group is none" in missing.found


def test_what_is_sent_must_be_received():
    sender = report(0, [Call("pp", "send", 8, 1), Call("world", "recv", 8, 1)])
    receiver = report(1, [Call("pp", "recv", 8, 0), Call("world", "send", 8, 0)])
    assert list(rules.check_pipeline([sender, receiver])) == []
    (broken,) = rules.check_pipeline([sender, report(1, [Call("world", "send", 8, 0)])])
    assert broken.rank == 0
    assert broken.found == "it sends 1 tensors to rank 1, which receives 0"


def test_a_tensor_of_another_size_is_named():
    sender = report(0, [Call("pp", "send", 8, 1)])
    (broken,) = rules.check_pipeline([sender, report(1, [Call("pp", "recv", 4, 0)])])
    assert broken.found == "tensor 1 to rank 1 has 8 bytes, and 4 are received"


def test_a_group_of_the_wrong_ranks_is_named():
    members = {"tp": [0], "cp": [0], "dp": [0], "pp": [0, 3]}
    (broken,) = rules.check_members(report(0, members=members), PIPELINE, 2)
    assert broken.rank == 0 and "[0, 3]" in broken.found and "[0, 1]" in broken.rule


def test_a_peak_beyond_the_gpu_is_named_with_a_remedy():
    one = report(1)
    one.peak = PeakMemory(2**30, 2 * 2**30, 0, 5 * 2**30, 0, "backward")
    assert list(rules.check_memory(one, 2**30, 9 * 2**30, "toy")) == []
    (broken,) = rules.check_memory(one, 2**30, 8.5 * 2**30, "toy")
    message = broken.describe(one.coordinates)
    assert message.startswith("rank 1 (tp0 cp0 dp0 pp1): it needs 9.0 GiB at its peak (8.0 of tens")
    assert "the 8.5 GiB that toy leaves" in message and "Remedy: raise TP or PP" in message


def test_ranks_of_one_pipeline_rank_hold_the_same_shapes():
    parallel = ParallelConfig(pipeline_model_parallel_size=2)
    assert list(rules.check_shapes({0: "a", 1: "a", 2: "b", 3: "b"}, parallel, 4)) == []
    (broken,) = rules.check_shapes({0: "a", 1: "a", 2: "b", 3: "a"}, parallel, 4)
    assert broken.rank == 3 and "than those of rank 2" in broken.found
