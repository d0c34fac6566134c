"""What the workers of a cluster exchange before training, and the run of a worker other than the chief.

    chief                            each other worker
    tokenizer, what is held out,
    files                        ->  encode the text
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
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.config.corpus import CorpusOptions
from quickfox.config.model import ModelConfig
from quickfox.config.schema import from_dict
from quickfox.config.training import TrainingConfig, TrainingRequest
from quickfox.data.corpus_writer import encode_corpus
from quickfox.data.dataset import Tokens, open_corpus_tokens, split_tokens
from quickfox.data.encoding import Split
from quickfox.errors import DataError, UsageError
from quickfox.files.atomic import temporary_directory
from quickfox.system.threads import available_threads
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.text.sources import STANDARD_INPUT
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.serialization import format_tokenizer, parse_tokenizer
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.distributed.messaging import Control, Message
from quickfox.training.distributed.rendezvous import connect_workers
from quickfox.training.engine.events import Event, RunContext, RunInterrupted, WorkerFinished, WorkerStarted
from quickfox.training.run.record import CorpusRecord, RunRecord, current_versions
from quickfox.training.tensorflow_runtime import num_gpus, start_tensorflow, vector_extensions

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster


def run_on_all_workers(
    request: TrainingRequest,
    corpus: Corpus | None,
    run_context: RunContext,
    run_chief: Callable[[RunContext, Control], Iterator[Event]],
) -> Iterator[Event]:
    """Connects the workers, then runs `run_chief` in the chief or the only process; the other workers train with it.

    `corpus` is None if a run is resumed: the chief names the files of the text.
    """
    with connect_workers(run_context.cluster, handshake(request, resumes=corpus is None), run_context.abort) as control:
        run_context = check_peers_while_reading(run_context, control)
        if run_context.cluster.is_chief:
            yield from run_chief(run_context, control)
        else:
            yield from _run_worker(control, corpus, run_context)


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


def check_peers_while_reading(run_context: RunContext, control: Control) -> RunContext:
    """The context with a `start_progress` that also raises an error, while a text is read, if a peer is lost."""

    def start_progress(stage: str, size: int) -> Callable[[int], None]:
        advance = run_context.start_progress(stage, size)

        def on_read(count: int) -> None:
            control.check()
            advance(count)

        return on_read

    return dataclasses.replace(run_context, start_progress=start_progress)


def send_tokenizer(
    control: Control, tokenizer: Tokenizer, split: Split | None, corpus: CorpusRecord | None = None
) -> None:
    """Sends the workers what they encode the text with: see `encode_corpus`.

    `corpus` is the record of the text, if the workers' command lines do not name it.
    """
    control.send(
        tokenizer=format_tokenizer(tokenizer).decode(),
        split=None if split is None else dataclasses.asdict(split),
        files=corpus and corpus.files,
        options=corpus and dataclasses.asdict(corpus.reading),
    )


def start_tensorflow_on_all(control: Control, spec: ClusterSpec, digest: str, threads: int) -> "Cluster":
    """Starts TensorFlow on all workers, with `threads` threads in total, if all have read the text with this digest.

    Raises:
        DataError: a worker has read another text.
        UsageError: a worker has other hardware.
        QuickfoxError: as `start_tensorflow` and `open_cluster`.
    """
    for rank, answer in enumerate(control.receive(), start=1):
        if answer != {"text": digest}:
            raise DataError(f"the text of {spec.describe(rank)} is not the chief's: give all workers the same files")
    threads = max(1, threads // spec.size)
    control.send(threads=threads)
    start_tensorflow(threads, is_distributed=spec.size > 1)
    from quickfox.training.distributed.strategy import open_cluster  # imports TensorFlow

    hardware = _describe_hardware()
    for rank, answer in enumerate(control.receive(), start=1):
        if answer != {"hardware": hardware}:
            raise UsageError(
                f"{spec.describe(rank)} has {answer['hardware']}, and the chief has {hardware}: all workers need the "
                f"same hardware"
            )
    control.send(all_ready=True)
    return open_cluster(spec, control)


def _describe_hardware() -> str:
    """What determines the arithmetic of a machine: its number of GPUs, or else the features of its processor."""
    if gpus := num_gpus():
        return "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    return f"a processor with {' '.join(vector_extensions()) or 'no vector extensions'}"


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
    control.advice = f"when all workers can run again, resume with: llm train --resume {shlex.quote(str(directory))}"
    control.send(
        directory=str(directory),
        advice=control.advice,
        model=dataclasses.asdict(record.model),
        training=dataclasses.asdict(record.training),
        training_tokens=record.training_tokens,
    )


def _run_worker(control: Control, corpus: Corpus | None, run_context: RunContext) -> Iterator[Event]:
    """The run of a worker other than the chief; raises the errors of other workers too."""
    spec = run_context.cluster
    run_context.notify(f"worker {spec.rank} of {spec.size}; progress is shown by {spec.describe(0)}")
    [text] = control.receive()
    if "no_training" in text:
        yield WorkerFinished()
        return
    tokenizer = parse_tokenizer(text["tokenizer"].encode(), spec.describe(0))
    if corpus is None:
        options = from_dict(CorpusOptions, text["options"], spec.describe(0))
        corpus = open_corpus(text["files"], run_context.notify, options=options, is_recorded=True)
    corpus = corpus.with_progress(run_context.start_progress("encoding", corpus.size))
    split = None if text["split"] is None else Split(**text["split"])
    tokens = _encode(corpus, tokenizer, split, control)
    [runtime] = control.receive()
    start_tensorflow(runtime["threads"], is_distributed=True)
    from quickfox.training.distributed.strategy import open_cluster  # imports TensorFlow
    from quickfox.training.engine.trainer import Trainer

    control.send(hardware=_describe_hardware())
    control.receive()  # all have imported TensorFlow
    cluster = open_cluster(spec, control)
    [run] = control.receive()
    if "no_training" in run:
        yield WorkerFinished()
        return
    control.advice = run["advice"]
    trainer = Trainer(
        from_dict(ModelConfig, run["model"], spec.describe(0)),
        from_dict(TrainingConfig, run["training"], spec.describe(0)),
        *split_tokens(tokens, tokenizer, run["training_tokens"], run["training"]["random_seed"]),
        time.monotonic(),
        cluster=cluster,
    )
    yield WorkerStarted()

    def forward_stop_request() -> None:
        if run_context.stop_requested():
            control.request_stop()

    interrupted = trainer.run_as_worker(forward_stop_request)
    yield RunInterrupted(Path(run["directory"]), trainer.progress.step) if interrupted else WorkerFinished()


def _encode(corpus: Corpus, tokenizer: Tokenizer, split: Split | None, control: Control) -> Tokens:
    """Encodes a worker's copy of the text, and sends the chief its digest.

    The token files are unlinked once they are open, so that their space is freed however this process ends.
    """
    with temporary_directory() as folder:
        path = folder / "tokens.bin"
        control.send(text=encode_corpus(corpus, tokenizer, path, split).digest)
        return open_corpus_tokens(path, tokenizer, has_documents=corpus.has_documents)
