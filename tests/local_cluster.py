"""Workers of a cluster on this machine, in a network namespace of their own where the kernel allows it.

TensorFlow's servers listen on every network interface, so that strangers could reach workers outside of a namespace.
Used by the tests and by benchmarks/scaling.py.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

# Starts the loopback interface (flags IFF_UP and IFF_RUNNING), and keeps the namespace until its input ends.
_HOLD_NAMESPACE = """
import fcntl, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def network_namespace() -> Iterator[list[str]]:
    """Context manager of a network with a loopback interface only; the value starts a command that runs in it.

    It is empty where the kernel does not allow a namespace.
    """
    try:
        holder = subprocess.Popen(
            ["unshare", "--map-root-user", "--net", sys.executable, "-c", _HOLD_NAMESPACE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        yield []
        return
    with holder:
        assert holder.stdout is not None
        is_ready = holder.stdout.readline() == b"ready\n"
        yield ["nsenter", "-U", "-n", "--preserve-credentials", "-t", str(holder.pid)] if is_ready else []


def start_workers(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str] = os.environ, **options: Any
) -> list["subprocess.Popen[str]"]:
    """Starts a worker by each command; `options` are those of `subprocess.Popen`."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in commands]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    workers = []
    for rank, command in enumerate(commands):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        env = {**environment, "TF_CONFIG": json.dumps(config)}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen(command, env=env, **streams, **options))
    return workers
