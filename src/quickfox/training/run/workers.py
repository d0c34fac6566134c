"""What the chief and the other workers of a cluster do together before the first step, and what those others do then.

    chief                                   each other worker
    tell the tokenizer, and which text  ->  encode the text
    compare                             <-  its digest
    tell how many threads               ->  import TensorFlow
    compare                             <-  its devices
    tell that all are ready             ->  start TensorFlow's servers together, which find each other
    decide on everything, tell it       ->  follow the chief's trainer, write nothing

A worker needs nothing of the run's folder, only the text. See `control.py` for how they talk.
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
    """What must be the same of all workers, by name, for `connect_workers`."""
    versions = current_versions()
    settings = dataclasses.asdict(request).items()
    return {
        "quickfox's version": versions["quickfox"],
        "TensorFlow's version": versions["tensorflow"],
        "--resume": resumes,
        **{f"--{name.replace('_', '-')}": value for name, value in settings if value is not None},
    }


def check_sources(spec: ClusterSpec | None, sources: Sequence[str]) -> None:
    """Raises UsageError if several workers are to read standard input, which only one can."""
    if spec is not None and STANDARD_INPUT in sources:
        raise UsageError("every worker reads the text by itself, and standard input can be read once: name a file")


def check_batch_divides(spec: ClusterSpec | None, batch_size: int | None) -> None:
    """Raises UsageError if a batch of so many sequences, if that is decided, does not divide by the workers."""
    if spec is None or batch_size is None:
        return
    workers = len(spec.addresses)
    if batch_size % workers:
        below = batch_size // workers * workers
        choices = f"{below} or {below + workers}" if below else f"{workers}"
        raise UsageError(f"--batch-size {batch_size} does not divide by {workers} workers: choose {choices}")


def total_threads(spec: ClusterSpec | None) -> int:
    """Processor threads of all workers together, taking their machines to be like this one."""
    if spec is None:
        return available_threads()
    share = (os.cpu_count() or 1) // spec.workers_on_this_host()
    return len(spec.addresses) * max(1, min(available_threads(), share))


def rescale_to_workers(record: RunRecord, run_context: RunContext) -> RunRecord:
    """A run as the workers there are now go on with it: with all their threads, if there were more or fewer before."""
    spec = run_context.cluster
    workers = 1 if spec is None else len(spec.addresses)
    if workers == record.workers:
        return record
    threads = total_threads(spec)
    if threads != record.training.threads:
        run_context.notify(
            f"{threads} threads in all, and before {record.training.threads}: sums are rounded differently, so the run "
            f"will not be the same to the last bit"
        )
    training = dataclasses.replace(record.training, threads=threads)
    return dataclasses.replace(record, workers=workers, training=training)


def threads_per_worker(spec: ClusterSpec | None, threads: int) -> int:
    """Of so many in all."""
    return threads if spec is None else max(1, threads // len(spec.addresses))


def check_peers_while_reading(run_context: RunContext, control: Control) -> RunContext:
    """The same, but who reads a text also notices when a peer is lost or has failed meanwhile."""

    def start_progress(stage: str, size: int) -> Callable[[int], None]:
        show = run_context.start_progress(stage, size)

        def on_read(count: int) -> None:
            control.check()
            show(count)

        return on_read

    return dataclasses.replace(run_context, start_progress=start_progress)


# The chief ------------------------------------------------------------------------------------------------


def send_tokenizer(control: Control, tokenizer: Tokenizer, files: tuple[str, ...] | None = None) -> None:
    """Tells the workers how to encode the text, and which, where their command line does not say so."""
    control.send(tokenizer=format_tokenizer(tokenizer).decode(), files=files)


def check_same_text(control: Control, spec: ClusterSpec | None, digest: str) -> None:
    """Makes sure that all workers have read the text of this digest.

    Raises:
        DataError: one has read another.
        QuickfoxError: one has failed or is lost.
    """
    for rank, answer in enumerate(control.receive(), start=1):
        if answer != {"text": digest}:
            assert spec is not None
            raise DataError(f"the text of {spec.describe(rank)} is not the chief's: give all workers the same files")


def start_tensorflow_on_all(control: Control, spec: ClusterSpec | None, threads: int) -> "Cluster":
    """Starts TensorFlow on all workers, with so many threads in all.

    Raises: as `start_tensorflow` and `open_cluster`.
    """
    each = threads_per_worker(spec, threads)
    control.send(threads=each)
    start_tensorflow(each, is_distributed=spec is not None)
    from quickfox.training.distributed.strategy import open_cluster  # needs TensorFlow, which has been imported by now

    for rank, answer in enumerate(control.receive(), start=1):
        if answer != _machine():
            assert spec is not None
            raise UsageError(
                f"{spec.describe(rank)} has {_devices(answer)}, and the chief has {_devices(_machine())}: "
                f"workers must be of one kind, to compute the same"
            )
    control.send(all_ready=True)
    return open_cluster(spec, control)


def _machine() -> Message:
    """What must be the same of all workers' machines: how many GPUs there are, or else what the processor computes."""
    gpus = num_gpus()
    return {"gpus": gpus, "processor": "" if gpus else " ".join(vector_extensions())}


def _devices(machine: Message) -> str:
    return f"{machine['gpus']} GPUs" if machine["gpus"] else f"a processor with {machine['processor'] or 'none'}"


def check_batch_divides_devices(cluster: "Cluster", batch_size: int) -> None:
    """Raises UsageError if the batch of a run that is resumed does not divide by the devices there are now."""
    if batch_size % cluster.replicas:
        raise UsageError(
            f"the run's --batch-size {batch_size} does not divide by {cluster.replicas} devices: see "
            f"CUDA_VISIBLE_DEVICES"
        )


def send_run_config(control: Control, directory: Path, record: RunRecord) -> None:
    """Tells the workers all that is decided; the next they hear is what the trainer does."""
    control.advice = _advice(str(directory))
    control.send(
        directory=str(directory),
        model=dataclasses.asdict(record.model),
        training=dataclasses.asdict(record.training),
        validation_split=record.validation_split,
    )


def _advice(directory: str) -> str:
    return f"when all can run again, go on with: llm train --resume {shlex.quote(directory)}"


# The others -----------------------------------------------------------------------------------------------


def run_worker(control: Control, spec: ClusterSpec, corpus: Corpus | None, run_context: RunContext) -> Iterator[Event]:
    """What a worker does that is not the chief.

    Args:
        control: its connection to the chief.
        spec: the cluster.
        corpus: the text; None: the chief says which.
        surroundings: of the run.

    Raises:
        QuickfoxError: any of its children: here, or at another worker.
    """
    run_context.notify(f"worker {spec.rank} of {len(spec.addresses)}; how it goes is shown by {spec.describe(0)}")
    [text] = control.receive()
    if "nothing_to_do" in text:
        yield WorkerFinished()
        return
    tokenizer = parse_tokenizer(text["tokenizer"].encode(), spec.describe(0))
    if corpus is None:
        corpus = open_corpus(text["files"], run_context.notify)
    tokens = _encoded(corpus.with_progress(run_context.start_progress("encoding", corpus.size)), tokenizer, control)
    [start] = control.receive()
    start_tensorflow(start["threads"], is_distributed=True)
    from quickfox.training.distributed.strategy import open_cluster  # needs TensorFlow
    from quickfox.training.engine.trainer import Trainer

    control.send(**_machine())
    control.receive()  # that all have imported it, and start it now
    cluster = open_cluster(spec, control)
    [run] = control.receive()
    if "nothing_to_do" in run:
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
    interrupted = trainer.run_as_worker(_passing_on(run_context.stop_requested, control))
    yield RunInterrupted(Path(run["directory"]), trainer.progress.step) if interrupted else WorkerFinished()


def _encoded(corpus: Corpus, tokenizer: Tokenizer, control: Control) -> Tokens:
    """A worker's own tokens, whose text's digest it tells the chief.

    Their files have no name any more, so that their space is free again however this process ends.
    """
    with tempfile.TemporaryDirectory(prefix="quickfox-") as folder:
        path = Path(folder, "tokens.bin")
        control.send(text=encode_corpus(corpus, tokenizer, path).digest)
        return open_corpus_tokens(path, tokenizer.token_dtype, has_loss_mask=has_documents(corpus))


def _passing_on(stop_requested: Callable[[], bool], control: Control) -> Callable[[], None]:
    def pass_on() -> None:
        if stop_requested():
            control.request_stop()

    return pass_on
