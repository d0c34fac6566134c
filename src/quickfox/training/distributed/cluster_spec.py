"""The processes of a training run, and the index of this one, from `TF_CONFIG` or from Slurm's variables.

    TF_CONFIG={"cluster": {"worker": ["ann:7000", "bob:7000"]}, "task": {"type": "worker", "index": 0}}

The chief is the process of the job "chief", or the first worker if there is none. TensorFlow's own resolvers are not
used: that of TF_CONFIG checks nothing, and that of Slurm sorts the nodes by name, so that n10 gets the address of n9.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from quickfox.errors import DataError, UsageError
from quickfox.files.json import parse_json

MAX_WORKERS = 1024

SLURM_TASKS = "SLURM_STEP_NUM_TASKS"
"""Set by `srun` for each task that it starts, and not in the batch script itself."""

_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\s\[\]]+)\]|(?P<name>[^\s:/\[\]]+)):(?P<port>[0-9]{1,5})")
_BY_NODE = ("block", "pack", "nopack", "*")  # prefixes of the distributions that number tasks node by node
_PORTS = range(20_000, 31_200)  # below the ports that Linux uses for outgoing connections
_PORTS_PER_JOB = 16  # the next job, perhaps on the same machine, has the next ports
_PORTS_PER_STEP = 101 * _PORTS_PER_JOB  # far from those of the next jobs


@dataclass(frozen=True)
class ClusterSpec:
    """The workers by rank, and the rank of this process.

    Attributes:
        addresses: host:port at which each listens, an IPv6 host in brackets; the first is the chief's.
        rank: of this process, from 0.
    """

    addresses: tuple[str, ...]
    rank: int

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process makes the decisions, writes files and shows progress."""
        return self.rank == 0

    def describe(self, rank: int) -> str:
        """The name of a worker in messages."""
        return f"{'the chief' if rank == 0 else f'worker {rank}'} ({self.addresses[rank]})"

    def endpoint(self, rank: int) -> tuple[str, int]:
        """The host, without brackets, and the port of a worker."""
        return _endpoint(self.addresses[rank])

    def workers_on_this_host(self) -> int:
        """Number of workers on the machine of this process, itself included, according to the host names."""
        hosts = [self.endpoint(rank)[0] for rank in range(self.size)]
        return hosts.count(hosts[self.rank])


SINGLE_PROCESS = ClusterSpec(("localhost:0",), 0)
"""The only worker, which listens at no address."""


def read_cluster_spec(environment: Mapping[str, str]) -> ClusterSpec:
    """Reads the cluster from environment variables; raises UsageError if they are invalid."""
    if environment.get("TF_CONFIG", "").strip():
        spec = _from_tf_config(environment["TF_CONFIG"])
    elif environment.get(SLURM_TASKS, "1") != "1":
        spec = _from_slurm(environment)
    else:
        return SINGLE_PROCESS
    if spec.size > MAX_WORKERS:
        raise UsageError(f"{spec.size} workers are more than {MAX_WORKERS}")
    return spec if spec.size > 1 else SINGLE_PROCESS


def _from_tf_config(text: str) -> ClusterSpec:
    try:
        config = parse_json(text.encode("utf-8", "surrogateescape"), "TF_CONFIG")
    except DataError as error:
        raise UsageError(str(error)) from None
    cluster, task = _member(config, "cluster"), _member(config, "task")
    if not cluster:
        return SINGLE_PROCESS
    if other := sorted(cluster.keys() - {"chief", "worker"}):
        raise UsageError(f"TF_CONFIG: the cluster has the job {other[0]!r}; only chief and worker are supported")
    jobs = {kind: _addresses(kind, cluster.get(kind, [])) for kind in ("chief", "worker")}
    if len(jobs["chief"]) > 1:
        raise UsageError(f"TF_CONFIG: {len(jobs['chief'])} chiefs, but only one is possible")
    addresses = (*jobs["chief"], *jobs["worker"])
    if len(set(map(_endpoint, addresses))) < len(addresses):
        raise UsageError("TF_CONFIG: an address occurs twice")
    kind, index = task.get("type"), task.get("index")
    if kind not in ("chief", "worker"):
        raise UsageError(f"TF_CONFIG: task.type must be chief or worker, not {kind!r:.60}")
    if type(index) is not int or not 0 <= index < len(jobs[kind]):
        raise UsageError(f"TF_CONFIG: task.index is {index!r:.60}, and there are {len(jobs[kind])} of the type {kind}")
    return ClusterSpec(addresses, index + (len(jobs["chief"]) if kind == "worker" else 0))


def _member(config: Any, name: str) -> dict[str, Any]:
    value = config.get(name, {}) if isinstance(config, dict) else None
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
        try:
            _endpoint(value)
        except (TypeError, ValueError):
            raise UsageError(
                f"TF_CONFIG: cluster.{kind}: an address is host:port, or [host]:port for IPv6, not {value!r:.60}"
            ) from None
    return values


def _endpoint(address: str) -> tuple[str, int]:
    """The host, in normalized spelling, and the port; raises ValueError if `address` is not one."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise ValueError(f"{address!r} is not an address")
    if match["name"]:
        match["name"].encode("idna")  # a UnicodeError is a ValueError: an empty or too long label
    return match["name"] or str(IPv6Address(match["ipv6"])), int(match["port"])


def _from_slurm(environment: Mapping[str, str]) -> ClusterSpec:
    """The tasks of the Slurm step of this process.

    The port of a node's first task is computed from the numbers of the job and the step; each further task of the node
    has the next port.
    """
    try:
        size, rank = int(environment[SLURM_TASKS]), int(environment["SLURM_PROCID"])
        hosts = _expand_nodes(environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"])
        tasks = _expand_tasks(environment["SLURM_STEP_TASKS_PER_NODE"])
        if not (len(hosts) == len(tasks) and 0 <= rank < size == sum(tasks)):
            raise ValueError(f"task {rank} of {size}, with {len(hosts)} nodes and the tasks {tasks!s:.60} on them")
        job, step = int(environment["SLURM_JOB_ID"]), int(environment.get("SLURM_STEP_ID", 0))
    except KeyError as error:
        raise UsageError(f"Slurm's variable {error.args[0]} is not set; start the workers with srun") from None
    except ValueError as error:
        raise UsageError(f"Slurm's variables describe no cluster: {error}; start the workers with srun") from None
    distribution = environment.get("SLURM_DISTRIBUTION") or "block"
    if len(tasks) > 1 and max(tasks) > 1 and not distribution.startswith(_BY_NODE):
        raise UsageError(
            f"Slurm's tasks are not numbered node by node: SLURM_DISTRIBUTION is {distribution!r:.60}; "
            f"start the workers with srun --distribution=block"
        )
    port = _PORTS[(job * _PORTS_PER_JOB + step * _PORTS_PER_STEP) % len(_PORTS)]
    addresses = [f"{host}:{port + i}" for host, count in zip(hosts, tasks, strict=True) for i in range(count)]
    return ClusterSpec(tuple(addresses), rank)


def _expand_nodes(text: str) -> list[str]:
    """Expands a node list such as `n[1-3,07],gpu[1-2]-ib`; with several brackets in a name, the last varies fastest."""
    names = re.findall(r"(?:[^\s,:\[\]]|\[(?:[0-9]{1,9}(?:-[0-9]{1,9})?,?\b)+\])+", text)
    if ",".join(names) != text:
        raise ValueError(f"{text!r:.60} is not a list of nodes")
    hosts: list[str] = []
    for name in names:
        parts = re.split(r"\[(.*?)\]", name)  # every second part was in brackets
        choices = [[*_expand_ranges(part)] if index % 2 else [part] for index, part in enumerate(parts)]
        hosts += itertools.islice(map("".join, itertools.product(*choices)), MAX_WORKERS + 1)
    return hosts


def _expand_ranges(text: str) -> Iterator[str]:
    """`9-10,007` -> 9, 10, 007: numbers are padded to the width of the first of their range."""
    for first, last in re.findall("([0-9]+)(?:-([0-9]+))?", text):
        for number in range(int(first), int(last or first) + 1)[: MAX_WORKERS + 1]:
            yield str(number).zfill(len(first))


def _expand_tasks(text: str) -> list[int]:
    """`2(x3),1` -> 2, 2, 2, 1."""
    parts = [re.fullmatch(r"([0-9]{1,4})(?:\(x([0-9]{1,4})\))?", part) for part in text.split(",")]
    if None in parts:
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE is {text!r:.60}")
    return [int(part[1]) for part in parts if part for _ in range(int(part[2] or 1))]
