"""Processes of this machine that answer on a socket: how one starts, ends with the one that started it, and how its
exceptions travel."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import traceback
from multiprocessing.connection import Connection


def start(module: str, gpu: str | None) -> tuple[subprocess.Popen[bytes], Connection]:
    """A new process that runs `module` with its end of a socket as the argument (`connected`), and our end of it.

    It has one thread and, where `gpu` names one, sees that GPU alone.
    """
    ours, theirs = socket.socketpair()
    # One thread: the sums inside a convolution are split by threads.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if gpu is not None:
        # Set before the process starts: CUDA reads it once.
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    with theirs:
        # -P: a file in the current folder does not stand in for a module unless it does so here.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            # The package is found as it was here, wherever it lies; the process then takes the whole path over.
            env={**environment, "PYTHONPATH": os.pathsep.join(part or os.getcwd() for part in sys.path)},
        )
    return process, Connection(ours.detach())


def connected() -> Connection:
    """In the new process: its end of the socket. From now on Ctrl-C, which reaches the whole process group of a
    terminal, is left to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return Connection(int(sys.argv[1]))


def received(connection: Connection) -> queue.SimpleQueue[bytes]:
    """What a thread reads from the socket. When the other end is gone, however it ended, so is this process."""
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        try:
            while True:
                messages.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return messages


def portable(error: Exception) -> Exception:
    """The exception with its traceback as a note, for --debug, because that itself does not travel; as a RuntimeError
    where it cannot be made again of what was pickled."""
    import cloudpickle

    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception as problem:
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        for note in (*error.__notes__, f"it could not be pickled: {problem}"):
            plain.add_note(note)
        return plain
    return error
