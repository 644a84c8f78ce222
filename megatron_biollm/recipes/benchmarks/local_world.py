"""One function in several processes of this machine, as torchrun would start them."""

import tempfile
from collections.abc import Callable
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def in_processes(count: int, function: Callable[..., Any], *args: Any) -> Any:
    """Runs `function(*args)` in `count` fresh processes that find each other through the
    environment; both must be picklable. One process is this one.

    Returns:
        What rank 0 returned.

    Raises:
        ChildFailedError: naming the first process that failed.
    """
    if count == 1:
        return function(*args)
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id="benchmark",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.1,
            start_method="spawn",
            logs_specs=_logs(folder),
        )
        return elastic_launch(config, function)(*args)[0]


def _logs(folder: str) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

    return DefaultLogsSpecs(log_dir=folder)
