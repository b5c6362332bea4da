"""The loopback interface, over which kernels and servers of the course are reached."""

import os
import socket

from courseware.errors import LabError

LOOPBACK = "127.0.0.1"


def check_loopback() -> None:
    """Send a connection through the loopback.

    Raises:
        LabError: if that fails. Kernels and servers could not be reached then either.
    """
    try:
        # Listening is not enough: Linux allows it while the interface is down.
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise LabError(
            f"This machine cannot connect to itself at {LOOPBACK} ({reason}), but kernels and "
            "servers are reached over that address. Switch the loopback interface on, as root: "
            f"ip link set lo up. If 'ip address show lo' then lists no {LOOPBACK}, add it: "
            f"ip address add {LOOPBACK}/8 dev lo"
        ) from None
