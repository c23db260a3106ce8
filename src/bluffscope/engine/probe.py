"""Run as a script by `launch.check_address`: does a Ray cluster answer at an address, and has it a node here?

Ray's own client waits for minutes at an address of something else, and cannot be interrupted: here it can be killed.
"""

from __future__ import annotations

import socket
import sys
from typing import Any


def main() -> int:
    """Return 0 where a cluster answers; otherwise print why not."""
    address = sys.argv[1]
    try:
        if address != "auto":  # importing Ray takes longer than this
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()

        from ray import _raylet
        from ray._private import services

        found = services.canonicalize_bootstrap_address_or_die(address)
        compiled: Any = _raylet
        client = compiled.GcsClient(address=found, cluster_id=None)
        services.get_node_to_connect_for_driver(client, timeout_seconds=5)
    except Exception as error:  # whatever the cause, the answer is that this address is of no use
        sys.stdout.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
