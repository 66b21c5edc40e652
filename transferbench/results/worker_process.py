"""A process of worker_processes.py: it reads items from a socket, and answers on it.

A second thread reads the socket: when the other process is gone, however it ended, so is this one.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any


def serve(connection: Connection) -> None:
    """Answer (True, value) or (False, exception) to one item after the other until the socket is closed."""
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        try:
            while True:
                messages.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    path, prepare = pickle.loads(messages.get())
    sys.path[:] = path
    function: Any = None
    while True:
        item = pickle.loads(messages.get())
        try:
            function = function or prepare()
            answer = True, function(item)
        except Exception as error:
            # Where it arose, for --debug: the traceback itself does not travel.
            error.add_note("".join(traceback.format_exception(error)))
            answer = False, error
        connection.send_bytes(_message(*answer))


def _message(is_done: bool, value: Any) -> bytes:
    try:
        message = pickle.dumps((is_done, value))
        # Some exceptions cannot be made again of what was pickled.
        pickle.loads(message)
    except Exception:
        return pickle.dumps((False, RuntimeError(f"{type(value).__name__}: {value}")))
    return message


if __name__ == "__main__":
    # Ctrl-C reaches the whole process group of a terminal, but the other process ends this one itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])))
