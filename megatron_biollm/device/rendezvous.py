"""How the ranks of one start of a run find each other, and not those of a start before it.

torchrun keeps one store for all its restarts, and its workers use it without telling the starts
apart (https://github.com/pytorch/pytorch/issues/135712): a rank may read where a dead one could be
reached, and waits there until the timeout. Counting restarts does not help, since every machine
counts its own. So the ranks agree on a name that no start before has had, and keep to keys below
it.
"""

import hashlib
import json
import os
import secrets
import time
from datetime import timedelta
from typing import Optional

from torch.distributed import PrefixStore, Store, rendezvous

WAIT_S = 0.05


def join_world(timeout: timedelta) -> tuple[Store, int, int]:
    """The store, rank and size of the world that torchrun describes in the environment.

    Raises:
        TimeoutError: naming the ranks that did not come.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        store = of_this_start(store, rank, size, timeout)
    return store, rank, size


def of_this_start(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """The part of a shared store that belongs to the ranks that are there now.

    Each leaves a random word. Rank 0 reads them all and shows what it has read, and every rank that
    finds its own word there agrees. What the dead have left is never agreed to, and rank 0 reads
    again. When all agree, the words together are the name.

    Raises:
        TimeoutError: naming the ranks that did not come.
    """
    word, until = secrets.token_hex(8), time.monotonic() + timeout.total_seconds()
    store.set(f"word/{rank}", word)
    while time.monotonic() < until:
        name = _lead(store, size) if rank == 0 else _follow(store, rank, size, word)
        if name is not None:
            return PrefixStore(name, store)
        time.sleep(WAIT_S)
    raise TimeoutError(
        f"rank {rank} of {size} has waited {timeout} for the others"
        + (f": no answer from ranks {_missing(store, size)}" if rank == 0 else "")
    )


def _lead(store: Store, size: int) -> Optional[str]:
    keys = [f"word/{rank}" for rank in range(size)]
    if not store.check(keys):
        return None
    words = [word.decode() for word in store.multi_get(keys)]
    store.set("words", json.dumps(words))
    name = _name(words)
    if size > 1 and not store.check([f"{name}/agreed/{rank}" for rank in range(1, size)]):
        return None
    store.set(f"{name}/go", "1")
    return name


def _follow(store: Store, rank: int, size: int, word: str) -> Optional[str]:
    if not store.check(["words"]):
        return None
    words = json.loads(store.get("words"))
    if len(words) != size or words[rank] != word:
        return None
    name = _name(words)
    store.set(f"{name}/agreed/{rank}", "1")
    return name if store.check([f"{name}/go"]) else None


def _missing(store: Store, size: int) -> list[int]:
    if not store.check(["words"]):
        return [rank for rank in range(size) if not store.check([f"word/{rank}"])]
    name = _name(json.loads(store.get("words")))
    return [rank for rank in range(1, size) if not store.check([f"{name}/agreed/{rank}"])]


def _name(words: list[str]) -> str:
    return hashlib.blake2b("".join(words).encode(), digest_size=8).hexdigest()
