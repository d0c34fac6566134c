"""What the workers of a cluster exchange before training, and the run of a worker other than the chief.

    chief                            each other worker
    tokenizer, names of files    ->  encode the text
    compare                      <-  digest of the text
    number of threads            ->  import TensorFlow
    compare                      <-  hardware
    all are ready                ->  start TensorFlow's servers, which connect to each other
    all decisions                ->  train with the chief, write no files

A worker needs the text but not the run directory. `distributed/messaging.py` transports the messages.
"""

import dataclasses
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.config.model import ModelConfig
from quickfox.config.schema import from_dict
from quickfox.config.training import TrainingConfig, TrainingRequest
from quickfox.data.dataset import Tokens, encode_corpus, open_corpus_tokens, split_tokens
from quickfox.errors import DataError, UsageError
from quickfox.system.threads import available_threads
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.text.jsonl import has_documents
from quickfox.text.sources import STANDARD_INPUT
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.serialization import format_tokenizer, parse_tokenizer
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.distributed.messaging import Control, Message
from quickfox.training.engine.events import Event, RunContext, RunInterrupted, WorkerFinished, WorkerStarted
from quickfox.training.run.record import RunRecord, current_versions
from quickfox.training.tensorflow_runtime import num_gpus, start_tensorflow, vector_extensions

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster


def handshake(request: TrainingRequest, *, resumes: bool) -> Message:
    """What `connect_workers` requires to be the same in all workers, by name."""
    versions = current_versions()
    settings = {name: value for name, value in dataclasses.asdict(request).items() if value is not None}
    return {
        "quickfox version": versions["quickfox"],
        "TensorFlow version": versions["tensorflow"],
        "resume": resumes,
        **settings,
    }


def check_sources(spec: ClusterSpec | None, sources: Sequence[str]) -> None:
    """Raises UsageError if several workers would read standard input, which only one can."""
    if spec is not None and STANDARD_INPUT in sources:
        raise UsageError("every worker reads the text itself, and standard input can be read once: name a file")


def check_batch_divides(spec: ClusterSpec | None, batch_size: int | None) -> None:
    """Raises UsageError if `batch_size` is given but not divisible by the number of workers."""
    if spec is None or batch_size is None:
        return
    workers = len(spec.addresses)
    if batch_size % workers:
        below = batch_size // workers * workers
        choices = f"{below} or {below + workers}" if below else f"{workers}"
        raise UsageError(
            f"batch_size {batch_size} is not divisible by {workers} workers: choose {choices}", "batch_size"
        )


def total_threads(spec: ClusterSpec | None) -> int:
    """Processor threads of all workers, assuming that their machines are like this one."""
    if spec is None:
        return available_threads()
    threads = (os.cpu_count() or 1) // spec.workers_on_this_host()
    return len(spec.addresses) * max(1, min(available_threads(), threads))


def rescale_to_workers(record: RunRecord, run_context: RunContext) -> RunRecord:
    """The record of a run to resume with the present number of workers and, if that has changed, of threads."""
    spec = run_context.cluster
    workers = 1 if spec is None else len(spec.addresses)
    if workers == record.workers:
        return record
    threads = total_threads(spec)
    if threads != record.training.threads:
        run_context.notify(
            f"{threads} threads instead of {record.training.threads}: sums are rounded differently, so the result will "
            f"not be bit-identical"
        )
    training = dataclasses.replace(record.training, threads=threads)
    return dataclasses.replace(record, workers=workers, training=training)


def threads_per_worker(spec: ClusterSpec | None, threads: int) -> int:
    """Threads of each worker, of `threads` in total."""
    return threads if spec is None else max(1, threads // len(spec.addresses))


def check_peers_while_reading(run_context: RunContext, control: Control) -> RunContext:
    """The context with a `start_progress` that also raises an error, while a text is read, if a peer is lost."""

    def start_progress(stage: str, size: int) -> Callable[[int], None]:
        advance = run_context.start_progress(stage, size)

        def on_read(count: int) -> None:
            control.check()
            advance(count)

        return on_read

    return dataclasses.replace(run_context, start_progress=start_progress)


# The chief ------------------------------------------------------------------------------------------------


def send_tokenizer(control: Control, tokenizer: Tokenizer, files: tuple[str, ...] | None = None) -> None:
    """Sends the workers the tokenizer, and the files of the text if their command lines do not name them."""
    control.send(tokenizer=format_tokenizer(tokenizer).decode(), files=files)


def check_same_text(control: Control, spec: ClusterSpec | None, digest: str) -> None:
    """Checks that every worker has read the text with this digest.

    Raises:
        DataError: a worker has read another text.
        QuickfoxError: a worker has failed or is lost.
    """
    for rank, answer in enumerate(control.receive(), start=1):
        if answer != {"text": digest}:
            assert spec is not None
            raise DataError(f"the text of {spec.describe(rank)} is not the chief's: give all workers the same files")


def start_tensorflow_on_all(control: Control, spec: ClusterSpec | None, threads: int) -> "Cluster":
    """Starts TensorFlow on all workers, with `threads` threads in total.

    Raises: as `start_tensorflow` and `open_cluster`.
    """
    own_threads = threads_per_worker(spec, threads)
    control.send(threads=own_threads)
    start_tensorflow(own_threads, is_distributed=spec is not None)
    from quickfox.training.distributed.strategy import open_cluster  # imports TensorFlow

    for rank, answer in enumerate(control.receive(), start=1):
        if answer != _hardware():
            assert spec is not None
            raise UsageError(
                f"{spec.describe(rank)} has {_format_hardware(answer)}, and the chief has "
                f"{_format_hardware(_hardware())}: all workers need the same hardware"
            )
    control.send(all_ready=True)
    return open_cluster(spec, control)


def _hardware() -> Message:
    """What determines the arithmetic of a machine: its number of GPUs, or else the features of its processor."""
    gpus = num_gpus()
    return {"gpus": gpus, "processor": "" if gpus else " ".join(vector_extensions())}


def _format_hardware(hardware: Message) -> str:
    gpus, features = hardware["gpus"], hardware["processor"]
    return f"{gpus} GPUs" if gpus else f"a processor with {features or 'no vector extensions'}"


def check_batch_divides_devices(cluster: "Cluster", batch_size: int) -> None:
    """Raises UsageError if the batch size of a resumed run is not divisible by the present number of devices."""
    if batch_size % cluster.replicas:
        raise UsageError(
            f"batch_size {batch_size} of the run is not divisible by {cluster.replicas} devices: change "
            f"CUDA_VISIBLE_DEVICES",
            "batch_size",
        )


def send_run_config(control: Control, directory: Path, record: RunRecord) -> None:
    """Sends the workers all decisions; the trainer sends every message after this one."""
    control.advice = _advice(str(directory))
    control.send(
        directory=str(directory),
        model=dataclasses.asdict(record.model),
        training=dataclasses.asdict(record.training),
        validation_split=record.validation_split,
    )


def _advice(directory: str) -> str:
    return f"when all workers can run again, resume with: llm train --resume {shlex.quote(directory)}"


# The other workers ----------------------------------------------------------------------------------------


def run_worker(control: Control, spec: ClusterSpec, corpus: Corpus | None, run_context: RunContext) -> Iterator[Event]:
    """The run of a worker other than the chief.

    Args:
        control: its connection to the chief.
        spec: the cluster.
        corpus: the text; None: the chief names its files.
        run_context: the program that the run is part of.

    Raises:
        QuickfoxError: any subclass; raised here or by another worker.
    """
    run_context.notify(f"worker {spec.rank} of {len(spec.addresses)}; progress is shown by {spec.describe(0)}")
    [text] = control.receive()
    if "no_training" in text:
        yield WorkerFinished()
        return
    tokenizer = parse_tokenizer(text["tokenizer"].encode(), spec.describe(0))
    if corpus is None:
        corpus = open_corpus(text["files"], run_context.notify)
    tokens = _encode(corpus.with_progress(run_context.start_progress("encoding", corpus.size)), tokenizer, control)
    [runtime] = control.receive()
    start_tensorflow(runtime["threads"], is_distributed=True)
    from quickfox.training.distributed.strategy import open_cluster  # imports TensorFlow
    from quickfox.training.engine.trainer import Trainer

    control.send(**_hardware())
    control.receive()  # all have imported TensorFlow
    cluster = open_cluster(spec, control)
    [run] = control.receive()
    if "no_training" in run:
        yield WorkerFinished()
        return
    control.advice = _advice(run["directory"])
    trainer = Trainer(
        from_dict(ModelConfig, run["model"], spec.describe(0)),
        from_dict(TrainingConfig, run["training"], spec.describe(0)),
        *split_tokens(tokens, run["validation_split"]),
        time.monotonic(),
        cluster=cluster,
    )
    yield WorkerStarted()

    def forward_stop_request() -> None:
        if run_context.stop_requested():
            control.request_stop()

    interrupted = trainer.run_as_worker(forward_stop_request)
    yield RunInterrupted(Path(run["directory"]), trainer.progress.step) if interrupted else WorkerFinished()


def _encode(corpus: Corpus, tokenizer: Tokenizer, control: Control) -> Tokens:
    """Encodes a worker's copy of the text, and sends the chief its digest.

    The token files are unlinked once they are open, so that their space is freed however this process ends.
    """
    with tempfile.TemporaryDirectory(prefix="quickfox-") as folder:
        path = Path(folder, "tokens.bin")
        control.send(text=encode_corpus(corpus, tokenizer, path).digest)
        return open_corpus_tokens(path, tokenizer.token_dtype, has_loss_mask=has_documents(corpus))
