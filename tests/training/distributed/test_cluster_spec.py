"""Clusters as TF_CONFIG and Slurm describe them, and invalid descriptions."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from quickfox.errors import UsageError
from quickfox.training.distributed.cluster_spec import SINGLE_PROCESS, ClusterSpec, read_cluster_spec


def tf_config(cluster: Any, kind: Any = "worker", index: Any = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_workers_are_listed_by_rank() -> None:
    spec = read_cluster_spec(tf_config({"worker": ["ann:7000", "bob:7000", "bob:7001"]}, index=2))
    assert spec == ClusterSpec(("ann:7000", "bob:7000", "bob:7001"), 2)
    assert not spec.is_chief
    assert spec.workers_on_this_host() == 2
    assert spec.describe(0) == "the chief (ann:7000)"
    assert spec.describe(1) == "worker 1 (bob:7000)"


def test_a_chief_comes_before_the_workers() -> None:
    cluster = {"chief": ["cat:1"], "worker": ["ann:1", "bob:1"]}
    assert read_cluster_spec(tf_config(cluster, "chief")) == ClusterSpec(("cat:1", "ann:1", "bob:1"), 0)
    assert read_cluster_spec(tf_config(cluster, "worker", 1)) == ClusterSpec(("cat:1", "ann:1", "bob:1"), 2)


@pytest.mark.parametrize(
    "environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}, tf_config({"worker": ["ann:1"]}), {"SLURM_PROCID": "0"}]
)
def test_a_single_process_has_no_cluster(environment: dict[str, str]) -> None:
    assert read_cluster_spec(environment) == SINGLE_PROCESS


INVALID_ADDRESSES = (
    *("a", "a:0", "a:65536", "a..b:1", "a" * 64 + ":1", "a:\u0663"),
    *("::1:7000", "[::1]", "[::1]:", "[]:1", "[ann]:1", "[1.2.3.4]:1", "[::1]a:1"),
)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, "not valid JSON"),
        ({"TF_CONFIG": "[]"}, "cluster must be a JSON object"),
        ({"TF_CONFIG": '{"cluster": [1]}'}, "cluster must be a JSON object"),
        (tf_config({"worker": ["a:1", "b:1"], "ps": ["c:1"]}), "the job 'ps'"),
        (tf_config({"worker": "a:1"}), "list of addresses"),
        (tf_config({"worker": [f"h{n}:1" for n in range(1025)]}), "more than 1024"),
        (tf_config({"worker": [1, "b:1"]}), "not 1"),
        (tf_config({"worker": ["a:1", "a:1"]}), "occurs twice"),
        (tf_config({"worker": ["[::1]:1", "[0::1]:1"]}), "occurs twice"),
        *[
            (tf_config({"worker": [address, "b:1"]}), rf"\[host\]:port for IPv6, not '{re.escape(address[:50])}")
            for address in INVALID_ADDRESSES
        ],
        (tf_config({"chief": ["a:1", "b:1"]}), "2 chiefs"),
        (tf_config({"worker": ["a:1", "b:1"]}, "evaluator"), "task.type must be chief or worker, not 'evaluator'"),
        (tf_config({"worker": ["a:1", "b:1"]}, ["worker"]), r"task.type must be chief or worker, not \['worker'\]"),
        (tf_config({"worker": ["a:1", "b:1"]}, "chief"), "task.index is 0"),
        (tf_config({"worker": ["a:1", "b:1"]}, index=2), "task.index is 2"),
        (tf_config({"worker": ["a:1", "b:1"]}, index=True), "task.index is True"),
    ],
)
def test_an_invalid_tf_config_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_cluster_spec(environment)


def test_ipv6_hosts_are_in_brackets() -> None:
    addresses = ("[::1]:7000", "[fe80::1%eth0]:7000", "[0:0:0:0:0:0:0:1]:7001", "127.0.0.1:7000")
    spec = read_cluster_spec(tf_config({"worker": list(addresses)}, index=2))
    assert spec == ClusterSpec(addresses, 2)
    endpoints = [spec.endpoint(rank) for rank in range(4)]
    assert endpoints == [("::1", 7000), ("fe80::1%eth0", 7000), ("::1", 7001), ("127.0.0.1", 7000)]
    assert spec.workers_on_this_host() == 2  # one spelt otherwise
    assert ClusterSpec(addresses, 3).workers_on_this_host() == 1
    assert spec.describe(0) == "the chief ([::1]:7000)"


def test_tf_config_has_precedence_over_slurm() -> None:
    spec = read_cluster_spec({**tf_config({"worker": ["ann:1", "bob:1"]}), "SLURM_STEP_NUM_TASKS": "2"})
    assert spec == ClusterSpec(("ann:1", "bob:1"), 0)


STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "n[9-10],ann",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_PROCID": "3",
}
INVALID_NODE_LISTS = (
    *("a,", ",a", "a b", "a:1", "n[1", "n1]", "n[[1]]"),
    *("n[]", "n[a]", "n[1\n]", "n[1,]", "n[1,,2]", "n[-2]", "n[1-2-3]"),
)


def slurm(tasks: str, count: int, nodes: str = "a", **changed: str) -> tuple[str, ...]:
    """The addresses of a step."""
    step = {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_STEP_NUM_TASKS": str(count), "SLURM_PROCID": "0"}
    return read_cluster_spec({**STEP, **step, "SLURM_STEP_NODELIST": nodes, **changed}).addresses


def test_a_slurm_step_computed_by_hand() -> None:
    """The nodes are not sorted: n9 is before n10, both before ann."""
    addresses = ("n9:20112", "n9:20113", "n10:20112", "n10:20113", "ann:20112")
    assert read_cluster_spec(STEP) == ClusterSpec(addresses, 3)
    step = {name: value for name, value in STEP.items() if name not in ("SLURM_STEP_NODELIST", "SLURM_STEP_ID")}
    assert read_cluster_spec({**step, "SLURM_JOB_NODELIST": "n[9-10],ann"}) == ClusterSpec(addresses, 3)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("b,a,c1", "b a c1"),
        ("n[1-3,7,09-11],login", "n1 n2 n3 n7 n09 n10 n11 login"),
        ("n[008-10]", "n008 n009 n010"),
        ("n[98-101]", "n98 n99 n100 n101"),
        ("gpu[1-2]-ib,x", "gpu1-ib gpu2-ib x"),
        ("r[1-2]n[01,3]", "r1n01 r1n3 r2n01 r2n3"),
        ("r[1-2]n[1-2]c5.site", "r1n1c5.site r1n2c5.site r2n1c5.site r2n2c5.site"),
        ("[1-2][0-1]x", "10x 11x 20x 21x"),
    ],
)
def test_node_lists_are_expanded(nodes: str, expected: str) -> None:
    hosts = expected.split()
    assert [address.split(":")[0] for address in slurm(f"1(x{len(hosts)})", len(hosts), nodes)] == hosts


def test_jobs_and_steps_on_one_machine_have_different_ports_that_are_neither_system_nor_ephemeral_ports() -> None:
    taken = [
        {int(address.split(":")[1]) for address in slurm("16", 16, SLURM_JOB_ID=str(job), SLURM_STEP_ID=str(step))}
        for job, step in [*((job, 0) for job in range(1000, 1100)), (1000, 1), (1000, 2)]
    ]
    assert len(set.union(*taken)) == sum(map(len, taken))
    for job in (0, 699, 700, 4_294_967_295):
        addresses = slurm("1024", 1024, SLURM_JOB_ID=str(job), SLURM_STEP_ID="4294967290")
        assert all(1024 <= int(address.split(":")[1]) < 32768 for address in addresses)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *[
            ({name: None}, f"{name} is not set")
            for name in ("SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID")
        ],
        ({"SLURM_STEP_NODELIST": None}, "SLURM_JOB_NODELIST is not set"),
        ({"SLURM_JOB_ID": "x"}, "'x'"),
        ({"SLURM_PROCID": "5"}, "task 5 of 5"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "task 3 of 4, with 3 nodes and the tasks"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2,3"}, "with 3 nodes and the tasks"),
        *[({"SLURM_STEP_TASKS_PER_NODE": tasks}, "PER_NODE is ") for tasks in ("", "2(x", "2,,1", "-1", "2(3)")],
        *[({"SLURM_STEP_NODELIST": nodes}, "not a list of nodes") for nodes in INVALID_NODE_LISTS],
        ({"SLURM_STEP_NODELIST": "n[2-1]"}, "with 0 nodes"),
        ({"SLURM_STEP_NODELIST": "n" + "[0-999999999]" * 3}, "with 1025 nodes"),  # and no more are made
    ],
)
def test_an_invalid_slurm_step_is_refused(changed: dict[str, str | None], message: str) -> None:
    environment = {name: value for name, value in {**STEP, **changed}.items() if value is not None}
    with pytest.raises(UsageError) as refusal:
        read_cluster_spec(environment)
    line = str(refusal.value)
    assert line.startswith("Slurm's variable")
    assert message in line
    assert line.endswith("; start the workers with srun")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("distribution", ["cyclic", "plane=4", "arbitrary"])
def test_other_task_distributions_are_refused(distribution: str) -> None:
    with pytest.raises(UsageError, match=f"{distribution}.*srun --distribution=block"):
        read_cluster_spec({**STEP, "SLURM_DISTRIBUTION": distribution})
    for tasks, nodes in (("5", "ann"), ("1(x5)", "n[9-12],ann")):  # where there is but one order
        slurm(tasks, 5, nodes, SLURM_DISTRIBUTION=distribution)
    for accepted in ("", "block:cyclic", "nopack", "*"):
        assert read_cluster_spec({**STEP, "SLURM_DISTRIBUTION": accepted}) == read_cluster_spec(STEP)


def test_tensorflow_is_not_needed() -> None:
    code = (
        "import sys; from quickfox.training.distributed.cluster_spec import read_cluster_spec; "
        f"assert read_cluster_spec({STEP!r}).rank == 3; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
