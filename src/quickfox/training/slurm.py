"""The tasks of a Slurm job step, from the variables that `srun` gives to each of them.

    SLURM_STEP_NODELIST=n[09-10],gpu1  SLURM_STEP_TASKS_PER_NODE=2(x2),1  SLURM_STEP_NUM_TASKS=5  SLURM_PROCID=3

Tasks are numbered node by node, and the nodes are in the order of the list, which is Slurm's own and not that of the
alphabet. Knows no sockets, and asks Slurm nothing: no command of it need be there.
"""

import itertools
import re
from collections.abc import Iterator, Mapping

from quickfox.errors import UsageError

SLURM_TASKS = "SLURM_STEP_NUM_TASKS"
"""Set by `srun` for each task that it starts, and not within a batch script itself."""

_BY_NODE = ("block", "pack", "nopack", "*")  # the distributions that number tasks node by node begin so

_PORTS = range(20_000, 31_200)  # below those that Linux gives to outgoing connections
_PORTS_OF_A_JOB = 16  # the next job, on the same machine, has the next ports
_PORTS_OF_A_STEP = 101 * _PORTS_OF_A_JOB  # far from those of the next jobs

_MAX_NODES = 2**16  # as many as Slurm itself takes


def read_slurm_step(environment: Mapping[str, str], max_tasks: int) -> tuple[tuple[str, ...], int]:
    """The tasks of the step that this process is one of.

    Returns:
        host:port of each, by rank, and the rank of this process. A node's first task has a port that follows from the
        numbers of the job and the step, each further one the next.

    Raises:
        UsageError: the variables are not there, contradict each other or name more than `max_tasks` tasks; or Slurm
            has numbered the tasks otherwise.
    """
    try:
        size, rank = (_number(environment, name) for name in (SLURM_TASKS, "SLURM_PROCID"))
        if size > max_tasks:
            raise UsageError(f"Slurm: {size} workers are more than {max_tasks}")
        hosts = _hosts(environment.get("SLURM_STEP_NODELIST") or _variable(environment, "SLURM_JOB_NODELIST"))
        tasks = _tasks_per_node(_variable(environment, "SLURM_STEP_TASKS_PER_NODE"))
        if len(tasks) != len(hosts):
            raise ValueError(f"{len(hosts)} nodes are listed, and the tasks of {len(tasks)}")
        if sum(tasks) != size:
            raise ValueError(f"the nodes have {sum(tasks)} tasks, and the step has {size}")
        if rank >= size:
            raise ValueError(f"SLURM_PROCID is {rank}, and there are {size} tasks")
        port = _first_port(_number(environment, "SLURM_JOB_ID"), _number(environment, "SLURM_STEP_ID", "0"))
    except ValueError as error:
        raise UsageError(f"Slurm's variables describe no cluster: {error}; start the workers with srun") from None
    distribution = environment.get("SLURM_DISTRIBUTION") or "block"
    if len(tasks) > 1 and max(tasks) > 1 and not distribution.startswith(_BY_NODE):
        raise UsageError(
            f"Slurm's tasks are not numbered node by node: SLURM_DISTRIBUTION is {distribution!r:.60}; "
            f"start the workers with srun --distribution=block"
        )
    addresses = (f"{host}:{port + i}" for host, count in zip(hosts, tasks, strict=True) for i in range(count))
    return tuple(addresses), rank


def _first_port(job: int, step: int) -> int:
    return _PORTS[(job * _PORTS_OF_A_JOB + step * _PORTS_OF_A_STEP) % len(_PORTS)]


def _variable(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise ValueError(f"{name} is not set")
    return environment[name]


def _number(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = _variable(environment, name) if default is None else environment.get(name, default)
    if re.fullmatch("[0-9]{1,10}", text) is None:
        raise ValueError(f"{name} is {text!r:.60}")
    return int(text)


def _hosts(text: str) -> list[str]:
    """The hosts of a list such as `n[1-3,07],gpu[1-2]-ib`; of several brackets in a name the last varies fastest."""
    names = re.findall(r"(?:[^\s,:\[\]]|\[[0-9,-]+\])+", text)
    if not names or ",".join(names) != text:
        raise ValueError(f"{text!r:.60} is no list of nodes")
    hosts = (host for name in names for host in _expanded(name))
    return list(itertools.islice(hosts, _MAX_NODES))


def _expanded(name: str) -> Iterator[str]:
    parts = re.split(r"\[(.*?)\]", name)  # each second one was in brackets
    choices = [list(_numerals(part)) if index % 2 else [part] for index, part in enumerate(parts)]
    return map("".join, itertools.product(*choices))


def _numerals(text: str) -> Iterator[str]:
    """`9-10,007` -> 9, 10, 007: the first number of a range has the digits that each has at least."""
    for part in text.split(","):
        match = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1) if match else ()
        if match is None or not 0 < len(numbers) <= _MAX_NODES:
            raise ValueError(f"[{text:.60}] is no range of nodes")
        yield from (str(number).zfill(len(match[1])) for number in numbers)


def _tasks_per_node(text: str) -> list[int]:
    """`2(x3),1` -> 2, 2, 2, 1."""
    tasks: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:\(x([0-9]{1,5})\))?", part)
        if match is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE is {text!r:.60}")
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks
