"""A cluster as Kubernetes and Slurm describe it, and descriptions that are none."""

import json
import re
from typing import Any

import pytest

from quickfox.errors import UsageError
from quickfox.training.cluster_spec import ClusterSpec, read_cluster_spec


def tf_config(cluster: Any, kind: Any = "worker", index: Any = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_workers_by_rank() -> None:
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
    "environment",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{}"},
        tf_config({}),
        tf_config({"worker": ["ann:1"]}),
        {"SLURM_PROCID": "0"},
    ],
)
def test_a_process_that_is_alone(environment: dict[str, str]) -> None:
    assert read_cluster_spec(environment) is None


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TF_CONFIG": "{"}, "not valid JSON"),
        ({"TF_CONFIG": "[]"}, "cluster must be a JSON object"),
        ({"TF_CONFIG": '{"cluster": [1]}'}, "cluster must be a JSON object"),
        (tf_config({"worker": ["a:1", "b:1"], "ps": ["c:1"]}), "the job 'ps'"),
        (tf_config({"worker": "a:1"}), "list of addresses"),
        (tf_config({"worker": ["a", "b:1"]}), "not 'a'"),
        (tf_config({"worker": ["a:0", "b:1"]}), "not 'a:0'"),
        (tf_config({"worker": ["a:65536", "b:1"]}), "not 'a:65536'"),
        (tf_config({"worker": [1, "b:1"]}), "not 1"),
        (tf_config({"worker": ["a:1", "a:1"]}), "given twice"),
        (tf_config({"worker": ["[::1]:1", "[0::1]:1"]}), "given twice"),
        *[
            (tf_config({"worker": [address, "b:1"]}), rf"\[host\]:port for IPv6, not '{re.escape(address)}'")
            for address in (
                "::1:7000",
                "[::1]",
                "[::1]:",
                "[::1",
                "[]:1",
                "[ann]:1",
                "[1.2.3.4]:1",
                "[::1]a:1",
                "a:\u0663",
            )
        ],
        (tf_config({"chief": ["a:1", "b:1"]}), "2 chiefs"),
        (tf_config({"worker": ["a:1", "b:1"]}, "evaluator"), "task.type is 'evaluator'"),
        (tf_config({"worker": ["a:1", "b:1"]}, "chief"), "task.index is 0"),
        (tf_config({"worker": ["a:1", "b:1"]}, index=2), "task.index is 2"),
        (tf_config({"worker": ["a:1", "b:1"]}, index=True), "task.index is True"),
        (tf_config({"worker": [f"h{n}:1" for n in range(1025)]}), "more than 1024"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID is not set; start the workers with srun"),
        ({"SLURM_STEP_NUM_TASKS": "1025", "SLURM_PROCID": "0"}, "1025 workers are more than 1024"),
    ],
)
def test_what_describes_no_cluster_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
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


def test_the_tasks_of_a_slurm_step() -> None:
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "n[9-10]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    spec = read_cluster_spec({**step, "SLURM_PROCID": "1", "SLURM_JOB_ID": "7"})
    assert spec == ClusterSpec(("n9:20112", "n10:20112"), 1)


def test_tf_config_goes_before_slurm() -> None:
    spec = read_cluster_spec({**tf_config({"worker": ["ann:1", "bob:1"]}), "SLURM_STEP_NUM_TASKS": "2"})
    assert spec == ClusterSpec(("ann:1", "bob:1"), 0)
