from megatron_biollm.recipes.benchmarks.torchtitan_side import failure


def test_the_reason_is_the_last_line_that_names_an_error():
    stderr = """
[rank0]: Traceback (most recent call last):
[rank0]:   File "trainer.py", line 1, in train
[rank0]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB
[rank0]:[W1123 ProcessGroupNCCL.cpp] process group has NOT been destroyed
"""
    assert failure(stderr) == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    assert failure("killed\n\n") == "killed"
    assert failure("") == ""
