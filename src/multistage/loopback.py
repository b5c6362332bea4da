"""The loopback interface, over which the servers of the course are reached."""

import ipaddress
import os

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost", "::1")


def bypass_proxies() -> None:
    """Make this process, and those that it starts, connect to the loopback without a proxy.

    Many networks set ``http_proxy`` and the like, and not everywhere ``no_proxy`` beside them. A
    request for 127.0.0.1 then goes to the proxy, which does not know the server that is meant.
    Entries that these variables have already are kept.
    """
    # gRPC reads no_grpc_proxy, else no_proxy; urllib no_proxy, else NO_PROXY. A variable that is
    # set here hides the later ones, so it must hold their entries too. "*" alone means all hosts
    # to urllib and curl, and nothing to gRPC.
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for variable in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        names = [name.strip() for name in (os.environ.get(variable) or listed).split(",")]
        if names == ["*"] and variable != "no_grpc_proxy":
            continue
        names = dict.fromkeys([*filter(None, names), *NAMES])
        os.environ[variable] = ",".join(names)


def is_local(host: str) -> bool:
    """Whether ``host`` is the loopback, or the wildcard address that servers listen on."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified
