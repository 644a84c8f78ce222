import pytest

from megatron_biollm.config import UserError, load_config
from megatron_biollm.launch.slurm_config import JobConfig, SlurmConfig, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("43200", 43200), ("10:30", 630), ("12:00:00", 43200), ("2-12", 216000), ("1-0:30", 88200),
     ("1-00:00:05", 86405)],
)  # fmt: skip
def test_time_is_read_in_slurms_forms_and_as_seconds(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["12:00:00", "'12:00:00'", "0-12"])
def test_a_time_in_a_file_means_the_same_with_and_without_quotes(tmp_path, text):
    (tmp_path / "site.yaml").write_text(f"slurm:\n  time: {text}\n")
    assert load_config(JobConfig, tmp_path / "site.yaml").slurm.time_limit == "12:00:00"
    assert load_config(JobConfig, None, [f"slurm.time={text}"]).slurm.time_seconds == 43200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "soon"}, "slurm.time=soon is no time limit; write 12:00:00"),
        ({"time": "0"}, "no time at all"),
        ({"time": "10:00"}, "slurm.signal_seconds=600 s before it and up to 60 s early; lengthen"),
        ({"signal_seconds": 70000, "time": "7-0"}, "more than the 65535 that sbatch takes"),
        ({"nodes": 0}, "slurm.nodes=0 must be at least 1"),
        ({"gpus_per_node": 4, "processes_per_node": 8}, "each of slurm.gpus_per_node=4 GPUs takes"),
        ({"gpu_option": "gpus"}, "choose gpus-per-node or gres"),
        ({"partition": "a\n#SBATCH --x"}, "cannot stand in an #SBATCH line"),
        ({"account": " "}, "cannot stand in an #SBATCH line"),
        ({"sbatch_options": ["switches=1"]}, "is no option of sbatch"),
        ({"exclusive": False}, "slurm.cpus_per_node says how many cores"),
        ({"max_starts": 0}, "slurm.max_starts=0 must be at least 1"),
    ],
)
def test_nonsense_is_refused_with_value_rule_and_remedy(options, message):
    with pytest.raises(UserError, match=message):
        SlurmConfig(**options)


def test_the_run_computes_on_what_the_nodes_have():
    with pytest.raises(UserError, match="training.device=cuda needs GPUs"):
        SlurmConfig(gpus_per_node=0).check_device("cuda")
    with pytest.raises(UserError, match="leaves slurm.gpus_per_node=8 GPUs idle"):
        SlurmConfig().check_device("cpu")
    SlurmConfig().check_device("auto")


def test_one_process_runs_on_each_gpu_and_as_many_as_asked_without():
    assert SlurmConfig(gpus_per_node=4).ranks_per_node == 4
    assert SlurmConfig(gpus_per_node=0, processes_per_node=3).ranks_per_node == 3


def test_a_misspelt_field_of_a_site_file_is_named(tmp_path):
    (tmp_path / "site.yaml").write_text("slurm:\n  partitions: gpu\n")
    with pytest.raises(UserError, match="did you mean slurm.partition?"):
        load_config(JobConfig, tmp_path / "site.yaml")
