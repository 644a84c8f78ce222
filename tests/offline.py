"""The tests do without a network: nothing but this machine may be connected to or looked up.

Python tells its audit hooks of every connection and every look-up before it is made. A hook stays
for the life of its process.
"""

import ipaddress
import os
import socket
import sys
from typing import Any

# What the libraries of Hugging Face ask before they connect to anything, in subprocesses too.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


class NetworkForbidden(OSError):
    """A connection to another machine, or the look-up of its name."""


def forbid_network() -> list[str]:
    """Refuses the network to this process from now on.

    Returns:
        What was tried, which grows.
    """
    os.environ.update(OFFLINE)
    tried: list[str] = []

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto") and _leaves(args[1]):
            tried.append(f"a connection to {args[1]}")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not _is_here(args[0]):
            tried.append(f"the address of {args[0]}")
        else:
            return
        raise NetworkForbidden(f"{tried[-1]} was asked for; tests do without a network")

    sys.addaudithook(refuse)
    return tried


def _leaves(address: Any) -> bool:
    # Sockets of other families than IP have paths or numbers for addresses.
    return isinstance(address, tuple) and isinstance(address[0], str) and not _is_here(address[0])


def _is_here(host: str | bytes | None) -> bool:
    """Whether a name or an address is this machine's; other machines' names are not looked up."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or _can_listen(str(address))


def _can_listen(address: str) -> bool:
    """Whether this machine has the address: only those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
