"""Start a new run: choose its tokenizer and settings, check them against the machine, write `run.json`, and train.

A run directory holds run.json, tokenizer.json, history.jsonl, checkpoints/step-00001200/ and, until the run has
finished, tokens.bin and lock.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.checkpoints.run_directory import TOKENS_FILE
from quickfox.data.dataset import count_training_tokens
from quickfox.text.corpus import Corpus
from quickfox.text.sources import STANDARD_INPUT
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.serialization import save_tokenizer
from quickfox.training.distributed.messaging import Control
from quickfox.training.distributed.rendezvous import connect_workers
from quickfox.training.engine.events import Event, RunContext, RunPlanned, RunRequest
from quickfox.training.planning.auto_config import Plan, choose_settings, choose_window
from quickfox.training.planning.cost import check_disk_space, check_memory, estimate_cost
from quickfox.training.run.dataset import (
    TOKENIZER_FILE,
    choose_tokenizer,
    describe_corpus,
    encode_corpus_checked,
    flush_tokens,
    tokenizer_digest,
)
from quickfox.training.run.directory import new_run
from quickfox.training.run.execute import execute_run
from quickfox.training.run.record import CheckpointInterval, CorpusRecord, RunRecord, current_versions, write_record
from quickfox.training.run.transfer import ResolvedRequest, resolve_request
from quickfox.training.run.workers import (
    check_batch_divides,
    check_peers_while_reading,
    check_same_text,
    handshake,
    run_worker,
    send_tokenizer,
    start_tensorflow_on_all,
    threads_per_worker,
    total_threads,
)
from quickfox.training.tensorflow_runtime import matmul_speed, preferred_precision

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster


def start_run(corpus: Corpus, name: str, request: RunRequest, run_context: RunContext) -> Iterator[Event]:
    """Trains a new model on `corpus`, yielding events; each `Validated` event follows a committed checkpoint.

    Args:
        corpus: the text.
        name: of the run directory under `runs/` if `request.output` is None.
        request: the settings requested.
        run_context: the program that the run is part of.

    Raises:
        QuickfoxError: any subclass; invalid input leaves no files behind.
    """
    spec = run_context.cluster
    check_batch_divides(spec, request.training.batch_size)
    with connect_workers(spec, handshake(request.training, resumes=False), run_context.abort) as control:
        run_context = check_peers_while_reading(run_context, control)
        if spec is not None and not spec.is_chief:
            yield from run_worker(control, spec, corpus, run_context)
        else:
            yield from _run_chief(corpus, name, request, run_context, control)


def _run_chief(
    corpus: Corpus, name: str, request: RunRequest, run_context: RunContext, control: Control
) -> Iterator[Event]:
    """`start_run` in the chief, or in the only process."""
    spec = run_context.cluster
    interval = CheckpointInterval.parse(request.checkpoint_every)
    resolved = resolve_request(request)
    tokenizer = choose_tokenizer(
        corpus.with_progress(run_context.start_progress("vocabulary", corpus.size)),
        request.vocabulary_path,
        resolved.training,
        resolved.pretrained.bundle.tokenizer if resolved.pretrained else None,
    )
    threads = resolved.training.threads or total_threads(spec)
    send_tokenizer(control, tokenizer)
    with new_run(request.output, name) as directory:
        encoded = encode_corpus_checked(
            corpus.with_progress(run_context.start_progress("encoding", corpus.size)),
            tokenizer,
            directory / TOKENS_FILE,
            choose_window(resolved.training),
            resolved.validation_split,
            run_context.notify,
        )
        check_same_text(control, spec, encoded.digest)
        cluster = start_tensorflow_on_all(control, spec, threads)
        if resolved.config_run is not None and resolved.config_run.corpus.sha256 != encoded.digest:
            run_context.notify(f"the text is not that of {request.config_from}: with its settings the run will differ")
        training_tokens = count_training_tokens(encoded.tokens, resolved.validation_split)
        lengths = training_tokens, encoded.tokens - training_tokens
        plan, flops = _choose_plan(resolved, tokenizer, lengths, threads, cluster, run_context)
        if request.dry_run:  # before the checks: the cost of a plan that they refuse is reported too
            yield _report_plan(directory, plan, lengths, flops, cluster, run_context)
        check_memory(plan.model, plan.training, cluster.size)
        check_disk_space(directory, plan.model, plan.training)
        if request.dry_run:
            control.send(no_training=True)
            return
        if STANDARD_INPUT in corpus.names:  # the text cannot be read again
            flush_tokens(directory / TOKENS_FILE)
        record = _build_record(plan, resolved, describe_corpus(corpus, encoded), tokenizer, interval, cluster)
        save_tokenizer(tokenizer, directory / TOKENIZER_FILE)
        write_record(directory, record)
        yield from execute_run(directory, record, tokenizer, None, run_context, cluster)


def _choose_plan(
    resolved: ResolvedRequest,
    tokenizer: Tokenizer,
    lengths: tuple[int, int],
    threads: int,
    cluster: "Cluster",
    run_context: RunContext,
) -> tuple[Plan, float]:
    """Chooses all settings; returns the plan and the measured floating-point operations per second of all workers.

    `lengths` are the numbers of training tokens and validation tokens, `threads` those of all workers.
    """
    request = resolved.training
    precision = preferred_precision() if request.precision == "auto" else request.precision
    flops = matmul_speed(precision, threads_per_worker(run_context.cluster, threads)) * cluster.size
    plan = choose_settings(
        request,
        vocabulary_size=tokenizer.vocabulary_size,
        training_tokens=lengths[0],
        validation_tokens=lengths[1],
        threads=threads,
        precision=precision,
        flops=flops,
        elapsed_seconds=time.monotonic() - run_context.started,
        is_pretrained=resolved.pretrained is not None,
        earlier_config=resolved.config_run.training if resolved.config_run else None,
        replicas=cluster.replicas,
    )
    return plan, flops


def _report_plan(
    directory: Path, plan: Plan, lengths: tuple[int, int], flops: float, cluster: "Cluster", run_context: RunContext
) -> RunPlanned:
    """The event of a dry run."""
    cost = estimate_cost(
        plan.model,
        plan.training,
        training_tokens=lengths[0],
        validation_tokens=lengths[1],
        flops=flops,
        budget_seconds=plan.budget_seconds,
        elapsed_seconds=time.monotonic() - run_context.started,
        workers=cluster.size,
    )
    return RunPlanned(
        directory=directory,
        model=plan.model,
        training=plan.training,
        budget_seconds=plan.budget_seconds,
        parameters=cost.parameters,
        training_tokens=lengths[0],
        validation_tokens=lengths[1],
        cost=cost,
        workers=cluster.size,
    )


def _build_record(
    plan: Plan,
    resolved: ResolvedRequest,
    corpus: CorpusRecord,
    tokenizer: Tokenizer,
    interval: CheckpointInterval,
    cluster: "Cluster",
) -> RunRecord:
    return RunRecord(
        model=plan.model,
        training=plan.training,
        budget_seconds=plan.budget_seconds,
        validation_split=resolved.validation_split,
        corpus=corpus,
        tokenizer=tokenizer.kind,
        vocabulary_sha256=tokenizer_digest(tokenizer),
        init_from=resolved.pretrained.record if resolved.pretrained else None,
        checkpoint_every=str(interval),
        workers=cluster.size,
        versions=current_versions(),
    )
