"""A cluster as Kubernetes and Slurm describe it, and descriptions that are none."""

import json
import os
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
        (tf_config({"chief": ["a:1", "b:1"]}), "2 chiefs"),
        (tf_config({"worker": ["a:1", "b:1"]}, "evaluator"), "task.type is 'evaluator'"),
        (tf_config({"worker": ["a:1", "b:1"]}, "chief"), "task.index is 0"),
        (tf_config({"worker": ["a:1", "b:1"]}, index=2), "task.index is 2"),
        (tf_config({"worker": ["a:1", "b:1"]}, index=True), "task.index is True"),
        (tf_config({"worker": [f"h{n}:1" for n in range(1025)]}), "more than 1024"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "srun"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "SLURM_PROCID": "x"}, "srun"),
    ],
)
def test_what_describes_no_cluster_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_cluster_spec(environment)


def test_the_tasks_of_a_slurm_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their ports differ from task to task of a machine, and from job to job."""
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "n[01-02]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
    for name, value in {**step, "SLURM_PROCID": "3", "SLURM_JOB_ID": "77"}.items():
        monkeypatch.setenv(name, value)
    spec = read_cluster_spec(os.environ)
    assert spec == ClusterSpec(("n01:20077", "n01:20078", "n02:20077", "n02:20078"), 3)
