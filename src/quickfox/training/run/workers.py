"""What the workers of a cluster agree on before training, and the run of a worker other than the chief.

    all workers              compare versions, settings and hardware
    chief -> all others      its run.json and tokenizer.json, once all is decided
    all others               encode the text, which must be that of the run
    all workers              train, but only the chief writes files

A worker needs the text but not the run directory. One that fails tells the others, which end with the same error.
"""

import dataclasses
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickfox.checkpoints.run_directory import RUN_FILE, TOKENIZER_FILE, TOKENS_FILE
from quickfox.config.training import TrainingRequest
from quickfox.data.corpus_writer import encode_corpus
from quickfox.errors import DataError, PeerLostError, QuickfoxError, UsageError
from quickfox.files.atomic import temporary_directory, write_file
from quickfox.files.json import parse_json
from quickfox.system.threads import available_threads
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.text.sources import STANDARD_INPUT
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.serialization import format_tokenizer, load_tokenizer
from quickfox.training.distributed.cluster_spec import SINGLE_PROCESS, ClusterSpec
from quickfox.training.distributed.connection import await_peers
from quickfox.training.engine.events import Event, RunContext, RunInterrupted, WorkerFinished, WorkerStarted
from quickfox.training.run.dataset import open_run_split
from quickfox.training.run.record import RunRecord, current_versions, format_record, read_record
from quickfox.training.tensorflow_runtime import num_gpus, start_tensorflow, vector_extensions

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster


def run_on_all_workers(
    request: TrainingRequest,
    corpus: Corpus | None,
    run_context: RunContext,
    run_chief: Callable[["Cluster | None"], Iterator[Event]],
) -> Iterator[Event]:
    """Connects the workers, then runs `run_chief` in the chief, or in the only process without a cluster.

    The other workers train with it. `corpus` is None if a run is resumed: the chief names the files of the text.
    """
    spec = run_context.cluster
    if spec.size == 1:
        yield from run_chief(None)
        return
    start_tensorflow(max(1, (request.threads or total_threads(spec)) // spec.size), is_distributed=True)
    await_peers(spec, run_context.notify, trust_network=run_context.trust_network)
    from quickfox.training.distributed.strategy import open_cluster  # imports TensorFlow

    cluster = open_cluster(spec)
    try:
        _compare_with_chief(cluster, {"resume": corpus is None, **_describe_worker(), **dataclasses.asdict(request)})
        yield from run_chief(cluster) if spec.is_chief else _run_worker(cluster, corpus, run_context)
    except PeerLostError:
        raise
    except QuickfoxError as error:
        cluster.report_failure(error)
        raise


def _describe_worker() -> dict[str, Any]:
    """The versions of programs, and the features that determine the arithmetic of a machine."""
    versions = current_versions()
    return {
        "quickfox version": versions["quickfox"],
        "TensorFlow version": versions["tensorflow"],
        "hardware (GPUs, or vector instructions)": num_gpus() or " ".join(vector_extensions()),
    }


def _compare_with_chief(cluster: "Cluster", values: dict[str, Any]) -> None:
    """Raises UsageError in all workers if a value of one is not that of the chief."""
    own = json.dumps(values).encode()
    of_chief = parse_json(cluster.broadcast_bytes(own), "the chief")
    for name, value in parse_json(own, "this worker").items():
        if value != of_chief[name]:
            raise UsageError(
                f"{name} is {value!s:.200}, and at the chief {of_chief[name]!s:.200}: all workers need the same",
                *([name] if name.isidentifier() else []),
            )
    cluster.exchange()  # raises the errors of the others


def check_sources(spec: ClusterSpec, sources: Sequence[str]) -> None:
    """Raises UsageError if several workers would read standard input, which only one can."""
    if spec.size > 1 and STANDARD_INPUT in sources:
        raise UsageError("every worker reads the text itself, and standard input can be read once: name a file")


def check_batch_divides(spec: ClusterSpec, batch_size: int | None) -> None:
    """Raises UsageError if `batch_size` is given but not divisible by the number of workers."""
    workers = spec.size
    if batch_size is not None and batch_size % workers:
        below = batch_size // workers * workers
        choices = f"{below} or {below + workers}" if below else f"{workers}"
        raise UsageError(
            f"batch_size {batch_size} is not divisible by {workers} workers: choose {choices}", "batch_size"
        )


def total_threads(spec: ClusterSpec) -> int:
    """Processor threads of all workers, assuming that their machines are like this one."""
    if spec.size == 1:
        return available_threads()
    threads = (os.cpu_count() or 1) // spec.workers_on_this_host()
    return spec.size * max(1, min(available_threads(), threads))


def rescale_to_workers(record: RunRecord, run_context: RunContext) -> RunRecord:
    """The record of a run to resume with the present number of workers and, if that has changed, of threads.

    Raises UsageError if the run is for one process and there are several workers.
    """
    workers = run_context.cluster.size
    if workers > 1 and record.model.ngram_gate:
        raise UsageError(
            f"a run with an n-gram gate is for one process, not for {workers} workers: resume it without TF_CONFIG"
        )
    if workers == record.workers:
        return record
    threads = total_threads(run_context.cluster)
    if threads != record.training.threads:
        run_context.notify(
            f"{threads} threads instead of {record.training.threads}: sums are rounded differently, so the result will "
            f"not be bit-identical"
        )
    training = dataclasses.replace(record.training, threads=threads)
    return dataclasses.replace(record, workers=workers, training=training)


def open_devices(cluster: "Cluster | None", threads: int) -> "Cluster":
    """The cluster, or the devices of this process, in which TensorFlow starts with `threads` threads."""
    if cluster is not None:
        return cluster
    start_tensorflow(threads)
    from quickfox.training.distributed.strategy import open_cluster  # imports TensorFlow

    return open_cluster(SINGLE_PROCESS)


def send_run(cluster: "Cluster | None", directory: Path, record: RunRecord, tokenizer: Tokenizer) -> None:
    """Sends the other workers what the chief has decided, and waits until they have read the text.

    Raises the errors of the others: a DataError if a text is not that of the chief.
    """
    if cluster:
        for data in (os.fsencode(directory), format_record(record), format_tokenizer(tokenizer)):
            cluster.broadcast_bytes(data)
        _start_together(cluster, directory)


def end_workers(cluster: "Cluster | None") -> None:
    """Ends the other workers, which wait for `send_run`."""
    if cluster:
        cluster.broadcast_bytes(b"")
        cluster.barrier()


def _start_together(cluster: "Cluster", directory: Path) -> None:
    cluster.exchange()
    cluster.advice = f"when all workers can run again, resume with: llm train --resume {shlex.quote(str(directory))}"


def _run_worker(cluster: "Cluster", corpus: Corpus | None, run_context: RunContext) -> Iterator[Event]:
    """The run of a worker other than the chief."""
    run_context.notify(f"worker {cluster.rank} of {cluster.size}; progress is shown by {cluster.spec.describe(0)}")
    directory = Path(os.fsdecode(name)) if (name := cluster.broadcast_bytes()) else None
    if directory is None:
        cluster.barrier()
        yield WorkerFinished()
        return
    with temporary_directory() as run:
        for file in (RUN_FILE, TOKENIZER_FILE):
            write_file(run / file, cluster.broadcast_bytes())
        record, tokenizer = read_record(run), load_tokenizer(run / TOKENIZER_FILE)
        if corpus is None:
            options = record.corpus.reading
            corpus = open_corpus(record.corpus.files, run_context.notify, options=options, is_recorded=True)
        if encode_corpus(corpus, tokenizer, run / TOKENS_FILE, record.split).digest != record.corpus.sha256:
            raise DataError(f"{corpus.names[0]}: the text is not that of the chief: give all workers the same files")
        tokens = open_run_split(run, tokenizer, record)
    # The token files are unlinked now, so that their space is freed however this process ends.
    _start_together(cluster, directory)
    from quickfox.training.engine.trainer import Trainer

    stop_requested = run_context.stop_requested
    trainer = Trainer(
        record.model, record.training, *tokens, time.monotonic(), cluster=cluster, stop_requested=stop_requested
    )
    yield WorkerStarted()
    interrupted = trainer.run_as_worker()
    yield RunInterrupted(directory, trainer.progress.step) if interrupted else WorkerFinished()
