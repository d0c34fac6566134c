"""Which processes train together, and which of them this one is: from `TF_CONFIG`, or from Slurm's variables.

    TF_CONFIG={"cluster": {"worker": ["ann:7000", "bob:7000"]}, "task": {"type": "worker", "index": 0}}

The first worker, or the one of the job "chief" if there is one, is the chief. Knows no sockets.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from quickfox.errors import DataError, UsageError
from quickfox.strict_json import parse_json
from quickfox.training.slurm import SLURM_TASKS, read_slurm_step

MAX_WORKERS = 1024

_ADDRESS = re.compile(r"(?:\[([^\s\[\]]+)\]|[^\s:/\[\]]+):([0-9]{1,5})")


@dataclass(frozen=True)
class ClusterSpec:
    """The workers by rank, and the rank of this process.

    Attributes:
        addresses: host:port of each, where it listens, an IPv6 host in brackets; the chief's is the first.
        rank: of this process, from 0.
    """

    addresses: tuple[str, ...]
    rank: int

    @property
    def is_chief(self) -> bool:
        """Whether this process decides, writes and shows."""
        return self.rank == 0

    def describe(self, rank: int) -> str:
        """A worker, named for a message."""
        return f"{'the chief' if rank == 0 else f'worker {rank}'} ({self.addresses[rank]})"

    def endpoint(self, rank: int) -> tuple[str, int]:
        """The host, without brackets, and the port of a worker, as a socket wants them."""
        return _endpoint(self.addresses[rank])

    def workers_on_this_host(self) -> int:
        """How many share this process's machine, itself included, as far as the hosts' names tell."""
        hosts = [_endpoint(address)[0] for address in self.addresses]
        return hosts.count(hosts[self.rank])


def read_cluster_spec(environment: Mapping[str, str]) -> ClusterSpec | None:
    """The cluster that the environment describes; None if there is none, or this process is all of it.

    Raises:
        UsageError: it is described wrongly.
    """
    if environment.get("TF_CONFIG", "").strip():
        spec = _from_tf_config(environment["TF_CONFIG"])
    elif environment.get(SLURM_TASKS, "1") != "1":
        spec = ClusterSpec(*read_slurm_step(environment, MAX_WORKERS))
    else:
        return None
    return spec if spec is not None and len(spec.addresses) > 1 else None


def _from_tf_config(text: str) -> ClusterSpec | None:
    try:
        config = parse_json(text.encode("utf-8", "surrogateescape"), "TF_CONFIG")
    except DataError as error:
        raise UsageError(str(error)) from None
    cluster, task = _member(config, "cluster", {}), _member(config, "task", {})
    if not cluster:
        return None
    if other := sorted(cluster.keys() - {"chief", "worker"}):
        raise UsageError(f"TF_CONFIG: the cluster has the job {other[0]!r}; only chief and worker can train a model")
    jobs = {kind: _addresses(kind, cluster.get(kind, [])) for kind in ("chief", "worker")}
    if len(jobs["chief"]) > 1:
        raise UsageError(f"TF_CONFIG: there are {len(jobs['chief'])} chiefs, and there can only be one")
    addresses = (*jobs["chief"], *jobs["worker"])
    if len(set(map(_endpoint, addresses))) < len(addresses):
        raise UsageError("TF_CONFIG: an address is given twice")
    if len(addresses) > MAX_WORKERS:
        raise UsageError(f"TF_CONFIG: {len(addresses)} workers are more than {MAX_WORKERS}")
    kind, index = task.get("type"), task.get("index")
    if kind not in jobs:
        raise UsageError(f"TF_CONFIG: task.type is {kind!r}, and must be chief or worker")
    if type(index) is not int or not 0 <= index < len(jobs[kind]):
        raise UsageError(f"TF_CONFIG: task.index is {index!r}, and there are {len(jobs[kind])} of the type {kind}")
    return ClusterSpec(addresses, index + (len(jobs["chief"]) if kind == "worker" else 0))


def _member(config: Any, name: str, default: dict[str, Any]) -> dict[str, Any]:
    value = config.get(name, default) if isinstance(config, dict) else None
    if not isinstance(value, dict):
        raise UsageError(
            f'TF_CONFIG: {name} must be a JSON object, as in {{"cluster": {{"worker": ["host:port", ...]}}, '
            f'"task": {{"type": "worker", "index": 0}}}}'
        )
    return value


def _addresses(kind: str, values: Any) -> list[str]:
    if not isinstance(values, list):
        raise UsageError(f"TF_CONFIG: cluster.{kind} must be a list of addresses host:port, not {values!r:.60}")
    for value in values:
        if not isinstance(value, str) or not _is_address(value):
            raise UsageError(
                f"TF_CONFIG: cluster.{kind}: an address is host:port, or [host]:port for IPv6, not {value!r:.60}"
            )
    return values


def _is_address(text: str) -> bool:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 2**16:
        return False
    try:
        return match[1] is None or IPv6Address(match[1]).version == 6
    except AddressValueError:
        return False


def _endpoint(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    if host.startswith("["):
        host = str(IPv6Address(host[1:-1]))  # of its many spellings always the same
    return host, int(port)
