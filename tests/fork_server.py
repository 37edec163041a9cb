"""A process that has imported the libraries of the commands, and forks itself for each command that a test starts.

    python -m tests.fork_server SOCKET

It saves the seconds that every start of Python spends on importing torch, transformers and DeepSpeed. What runs is the
command itself, in a process of its own with its own arguments, environment, folder, files and signals; see
tests/processes.py, which speaks to it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading

PRELOADED = (
    "aes_r1.pipeline.run", "aes_r1.scoring.critic", "aes_r1.model.tiny", "datasets.arrow_writer", "deepspeed",
    "hydra.experimental.callback", "litellm", "openai.resources.chat", "scipy.stats", "setuptools",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl",
    "transformers.models.auto.modeling_auto", "wandb",
)  # fmt: skip
HEAD = struct.Struct("!q")


def serve(path: str) -> dict:
    """Fork for every request; returns the request in each child, and never in the server."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    children: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as ready:
        for source in (listener, woken, sys.stdin):  # stdin is closed when the tests end
            ready.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is sys.stdin:
                    os._exit(0)
                elif key.fileobj is woken:
                    woken.recv(4096)
                    _tell_ends(children)
                else:
                    connection, _ = listener.accept()
                    head, files, _, _ = socket.recv_fds(connection, HEAD.size, 3)
                    request = json.loads(_read(connection, HEAD.unpack(head)[0]))
                    child = os.fork()
                    if child == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for number, file in enumerate(files):
                            os.dup2(file, number)
                        for file in files:
                            os.close(file)
                        for other in (listener, woken, wake, connection, *children.values()):
                            other.close()
                        return request
                    for file in files:
                        os.close(file)
                    children[child] = connection
                    connection.sendall(HEAD.pack(child))


def _read(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        parts.append(connection.recv(size))
        size -= len(parts[-1])
    return b"".join(parts)


def _tell_ends(children: dict[int, socket.socket]) -> None:
    """Send the exit status of every child that has ended to whoever started it."""
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        connection = children.pop(child)
        with contextlib.suppress(BrokenPipeError):  # the other side may be gone
            connection.sendall(HEAD.pack(status))
        connection.close()


def main() -> None:
    for module in PRELOADED:
        __import__(module)
    gc.freeze()
    request = serve(sys.argv[1])
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    os._exit(_exit_code(request["arguments"]))


def _exit_code(arguments: list[str]) -> int:
    """Run the command to its end as Python does, but for taking the imported modules apart, which takes half a second.

    As in processes of multiprocessing, threads are waited for, functions of atexit are called, and output is flushed.
    """
    code = 0
    try:
        _run(*arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = 120  # Python's own, where nobody reads the output
    return code & 0xFF


def _run(kind: str, what: str, *arguments: str) -> None:
    sys.path[0] = os.getcwd() if kind == "-m" else ""
    if kind == "-c":
        sys.argv = ["-c", *arguments]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        return
    sys.argv = [what, *arguments]
    sys.modules.pop(what, None)  # a module that a preloaded one imported would otherwise not run as __main__
    runpy.run_module(what, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
