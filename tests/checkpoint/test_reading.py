"""Values go straight into tensors, from files that are verified as they are read."""

import hashlib
import os
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed.checkpoint as dcp
import xxhash

from megatron_biollm.atomic import sync_file
from megatron_biollm.checkpoint import page_cache, reading, verify
from megatron_biollm.checkpoint.reading import straight_into_tensors
from megatron_biollm.checkpoint.verify import BadCheckpoint, Place, Verification

CONTENT = bytes(range(256)) * 20_000


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "_PART", 1000)
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def recorded(content=CONTENT):
    return {"bytes": len(content), "xxh3_128": xxhash.xxh3_128_hexdigest(content)}


@pytest.mark.parametrize(
    "cuts",
    [[], [(0, 1)], [(5, 2500), (2500, 2501), (7000, 9000)], [(0, len(CONTENT))]],
    ids=["none", "the first byte", "side by side and apart", "all"],
)
@pytest.mark.parametrize("step", [999, 5000, len(CONTENT)])
def test_bytes_reach_their_places_as_the_file_is_verified(file, cuts, step):
    memory = [bytearray(stop - start) for start, stop in cuts]
    filled = []
    places = [
        Place(start, stop - start, lambda m=m: memoryview(m), lambda m=m: filled.append(bytes(m)))
        for (start, stop), m in zip(cuts, memory, strict=True)
    ]
    verification = Verification(file, recorded(), places)
    for stop in range(step, len(CONTENT), step):
        verification.advance(stop)
        assert verification.done == stop
        assert len(filled) == sum(end <= stop for _, end in cuts)
    verification.finish()
    assert filled == [CONTENT[start:stop] for start, stop in cuts]


def test_a_changed_file_is_told_whatever_is_wanted_of_it(file):
    memory = bytearray(100)
    place = Place(50, 100, lambda: memoryview(memory), lambda: None)
    with pytest.raises(BadCheckpoint, match="was changed"):
        Verification(file, recorded(CONTENT[:-1] + b"x"), [place]).finish()


def test_a_checkpoint_from_before_is_compared_with_its_sha256(file):
    before = {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    Verification(file, before).finish()
    with pytest.raises(BadCheckpoint, match="was changed"):
        Verification(file, before | {"sha256": "0" * 64}).finish()
    with pytest.raises(KeyError, match="no digest of xxh3_128 or sha256"):
        Verification(file, {"bytes": len(CONTENT), "md5": ""})


def take_out_of_memory(file):
    sync_file(file)
    page_cache.forget_file(file)
    if page_cache.cached_share(file) > 0.5:
        pytest.skip("this file system keeps its files in memory")


def test_only_what_nobody_else_wants_leaves_memory_and_only_if_it_was_not_there(file, monkeypatch):
    def verified(only_here):
        memory = bytearray(len(CONTENT) - 100)
        place = Place(50, len(memory), lambda: memoryview(memory), lambda: None, only_here)
        Verification(file, recorded(), [place]).finish()
        return page_cache.cached_share(file) > 0.5

    take_out_of_memory(file)
    monkeypatch.setattr(verify, "_PART", 2**20)
    assert not verified(only_here=True)
    assert verified(only_here=False)
    assert verified(only_here=True)


def test_a_file_is_read_from_a_clean_start_unless_it_is_in_memory(file):
    take_out_of_memory(file)
    with file.open("rb") as opened:
        page_cache.touch_only(opened.fileno())
        os.pread(opened.fileno(), 10, len(CONTENT) // 2)
        assert page_cache.cached_share(file)
        page_cache.ForgetBehind(file)
        assert not page_cache.cached_share(file)
        os.pread(opened.fileno(), len(CONTENT), 0)
    page_cache.ForgetBehind(file)
    assert page_cache.cached_share(file) > 0.5


def saved(folder):
    """A committed checkpoint in two files, and what is in it."""
    torch.manual_seed(1)
    tensors = {
        "matrix": torch.randn(300, 70),
        "other": torch.randn(65, 3, 5),
        "bf16": torch.randn(40, 2).bfloat16(),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
    }
    partial = folder / f"step_00000007.0{verify.PARTIAL}"
    writer = dcp.FileSystemWriter(partial, thread_count=2)
    dcp.save(tensors | {"object": {"a": 1}}, storage_writer=writer, no_dist=True)
    digests = verify.digest_files(partial, verify.files_to_digest(partial))
    verify.commit(partial, verify.step_folder(folder, 7), digests)
    return verify.step_folder(folder, 7), tensors


def loaded(folder, tensors, unverified):
    into = {name: torch.full_like(tensor, -1) for name, tensor in tensors.items()}
    addresses = {name: tensor.data_ptr() for name, tensor in into.items()}
    state = into | {"object": {"a": 0}}
    ranks = torch.distributed.group.WORLD
    with straight_into_tensors(folder if unverified else None, ranks):
        dcp.load(state, checkpoint_id=folder)
    assert all(into[name].data_ptr() == address for name, address in addresses.items())
    return state


def load_both_ways(directory, host_memory):
    """What is loaded wrongly, and the files of which tensors were read by themselves."""
    folder, tensors = saved(Path(directory))
    wrong, alone, move = [], [], reading.Transfer.move

    def noted(transfer):
        alone[-1].append(transfer.path.name)
        move(transfer)

    with (
        mock.patch.object(reading, "_can_be_filled", return_value=True),
        mock.patch.object(reading, "_is_host_memory", return_value=host_memory),
        mock.patch.object(reading.Transfer, "move", noted),
    ):
        for unverified in (False, True):
            alone.append([])
            state = loaded(folder, tensors, unverified)
            assert state["object"] == {"a": 1}
            wrong += [name for name in tensors if not torch.equal(state[name], tensors[name])]
    return wrong, [len(each) for each in alone], [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("host_memory", [True, False])
def test_loading_gives_what_was_saved_and_reads_verified_values_once(world, tmp_path, host_memory):
    """Through memory of the host, too, as for tensors on a GPU."""
    ((wrong, alone, files),) = world.run(1, load_both_ways, str(tmp_path), host_memory)
    assert wrong == []
    assert "__0_1.distcp" in files
    assert alone == [4, 0]  # torch asks for no tensor without values


def error_after(directory, name, place):
    folder, tensors = saved(Path(directory))
    content = bytearray((folder / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (folder / name).write_bytes(content)
    try:
        loaded(folder, tensors, True)
    except dcp.api.CheckpointException as error:
        return [
            (rank, type(found).__name__, str(found)) for rank, (found, _) in error.failures.items()
        ]
    return None


@pytest.mark.parametrize("place", [0, 0.001, 0.3, 0.99, 1])
@pytest.mark.parametrize("name", ["__0_0.distcp", "__0_1.distcp"])
def test_damage_anywhere_in_the_files_is_named(world, tmp_path, name, place):
    ((found,),) = world.run(1, error_after, str(tmp_path), name, place)
    assert found[:2] == (0, "BadCheckpoint") and f"{name} was changed" in found[2]
