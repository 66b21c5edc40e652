"""A process of worker_processes.py: it reads items from a socket, and answers on it."""

from __future__ import annotations

import pickle
import sys
from multiprocessing.connection import Connection
from typing import Any

from transferbench.base import child_process


def serve(connection: Connection) -> None:
    """Answer (True, value) or (False, exception) to one item after the other until the socket is closed."""
    import cloudpickle

    messages = child_process.received(connection)
    path, prepare = pickle.loads(messages.get())
    sys.path[:] = path
    function: Any = None
    while True:
        item = pickle.loads(messages.get())
        try:
            function = function or prepare()
            message = cloudpickle.dumps((True, function(item)))
        except Exception as error:
            # Not swallowed: the other process raises it.
            message = cloudpickle.dumps((False, child_process.portable(error)))
        connection.send_bytes(message)


if __name__ == "__main__":
    serve(child_process.connected())
