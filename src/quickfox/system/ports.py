"""Which process listens at a TCP port."""

import os
import re
from pathlib import Path

_LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp (include/net/tcp_states.h of Linux)."""


def find_listener(port: int, proc: Path = Path("/proc")) -> str | None:
    """The process that listens at a TCP port of this machine, such as "process 4711 (nginx)".

    Args:
        port: 1 ... 65535.
        proc: the mounted proc file system.

    Returns:
        None: there is none, it belongs to another user, or the operating system is not Linux.
    """
    targets = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    if not targets:
        return None
    for directory in proc.glob("[0-9]*/fd"):
        try:
            if any(os.readlink(entry.path) in targets for entry in os.scandir(directory)):  # noqa: PTH115
                name = (directory.parent / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"process {directory.parent.name} ({name})"
        except OSError:  # of another user, or ended meanwhile
            continue
    return None


def _listening_inodes(port: int, proc: Path) -> list[str]:
    """The inodes of the sockets that listen at a port."""
    lines: list[str] = []
    for table in ("tcp", "tcp6"):
        try:
            lines += (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
    rows = [re.split(r"\s+", line.strip()) for line in lines]  # sl local_address rem_address st ... inode ...
    return [row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]
