"""Start a new run: choose its tokenizer and settings, check them against the machine, write `run.json`, and train.

A run directory holds run.json, tokenizer.json, history.jsonl, checkpoints/step-00001200/ and, until the run has
finished, tokens.bin and lock.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickfox.checkpoints.run_directory import TOKENIZER_FILE, TOKENS_FILE
from quickfox.config.media import MediaConfig
from quickfox.config.model import ngram_config
from quickfox.data.corpus_writer import EncodedCorpus
from quickfox.data.dataset import Tokens, count_target_bytes
from quickfox.data.encoding import Split
from quickfox.text.corpus import Corpus
from quickfox.text.sources import STANDARD_INPUT
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.serialization import save_tokenizer, tokenizer_digest
from quickfox.training.engine.events import Event, RunContext, RunPlanned, RunRequest, RunStarted
from quickfox.training.engine.ngrams import NgramEstimation
from quickfox.training.planning.auto_config import Plan, choose_settings
from quickfox.training.planning.cost import check_disk_space, check_memory, estimate_cost
from quickfox.training.planning.ngrams import (
    MAX_GATE_EPOCHS,
    allows_gate,
    check_ngram_request,
    check_ngram_workers,
    choose_ngram_order,
    ngram_training,
)
from quickfox.training.planning.time_budget import MAX_VALIDATION_TOKENS
from quickfox.training.run.dataset import (
    advise,
    choose_tokenizer,
    describe_corpus,
    encode_corpus_checked,
    flush_tokens,
    open_split,
)
from quickfox.training.run.directory import new_run
from quickfox.training.run.execute import execute_run, run_started
from quickfox.training.run.media import choose_rows, prepare_media
from quickfox.training.run.record import CheckpointInterval, CorpusRecord, RunRecord, current_versions, write_record
from quickfox.training.run.recorded_text import stamp_files
from quickfox.training.run.transfer import ResolvedRequest, check_repeated, resolve_request
from quickfox.training.run.workers import (
    check_batch_divides,
    end_workers,
    open_devices,
    run_on_all_workers,
    send_run,
    total_threads,
)
from quickfox.training.tensorflow_runtime import matmul_speed, preferred_precision

if TYPE_CHECKING:
    from quickfox.training.distributed.strategy import Cluster


def start_run(
    corpus: Corpus, name: str, request: RunRequest, run_context: RunContext, validation: Corpus | None = None
) -> Iterator[Event]:
    """Trains a new model on `corpus`, yielding events; each `Validated` event follows a committed checkpoint.

    The run directory is `runs/NAME` if `request.output` is None. The model is validated on the text `validation`; None:
    on a part of the corpus. Raises any QuickfoxError; invalid input leaves no files behind.
    """
    check_batch_divides(run_context.cluster, request.training.batch_size)
    if request.training.architecture == "ngram":
        check_ngram_workers(run_context.cluster.size)
    run_chief = partial(_run_chief, corpus, validation, name, request, run_context)
    yield from run_on_all_workers(request.training, corpus, run_context, run_chief)


def _run_chief(
    corpus: Corpus,
    validation: Corpus | None,
    name: str,
    request: RunRequest,
    run_context: RunContext,
    workers: "Cluster | None",
) -> Iterator[Event]:
    """`start_run` in the chief, or in the only process."""
    checkpoint_every = str(CheckpointInterval.parse(request.checkpoint_every))
    resolved = resolve_request(request)
    if resolved.training.architecture == "ngram":
        check_ngram_request(request.training)  # not the settings that were taken from another run
        check_ngram_workers(run_context.cluster.size)
    tokenizer, split = choose_tokenizer(corpus, request.vocabulary_path, resolved, run_context)
    resolved, media = prepare_media(corpus, split, resolved, run_context.cluster.size)
    threads = _choose_threads(resolved, run_context)
    with new_run(request.output, name) as directory, ExitStack() as stack:
        texts = corpus, validation, split
        corpus_record, tokens, encoded = _encode(texts, tokenizer, directory, request, resolved, run_context, media)
        training_tokens = len(tokens[0])
        resolved, tokens_per_row = choose_rows(resolved, tokens[0])
        order = choose_ngram_order(resolved.training, tokens[0].ids)
        max_gate_epochs = _max_gate_epochs(resolved, run_context.cluster.size, order, tokenizer, training_tokens)
        has_network = resolved.training.architecture != "ngram"
        ngrams, cluster = None, None
        if order and not request.dry_run:
            ngrams = _start_ngrams(order, tokenizer, tokens, resolved, threads, has_gate=max_gate_epochs > 0)
            stack.enter_context(ngrams)
        if has_network:
            cluster = open_devices(workers, threads)
        chosen: dict[str, Any] = {"media": encoded.media, "tokens_per_row": tokens_per_row}
        plan_run: Callable[..., Any] = partial(_plan_run, ngram_order=order, max_gate_epochs=max_gate_epochs, **chosen)
        record, flops = plan_run(
            resolved, corpus_record, tokenizer, checkpoint_every, threads, cluster, run_context.started
        )
        if request.dry_run:  # before the checks: the cost of a plan that they refuse is reported too
            yield _report_plan(run_started(directory, record), flops, run_context.started)
        check_memory(record.model, record.training, training_tokens=training_tokens, workers=record.workers)
        check_disk_space(directory, record.model, record.training, training_tokens=training_tokens)
        if request.dry_run:
            end_workers(workers)
            return
        if STANDARD_INPUT in (*corpus_record.files, *corpus_record.validation_files):  # the text cannot be read again
            flush_tokens(directory / TOKENS_FILE)
        send_run(workers, directory, record, tokenizer)
        save_tokenizer(tokenizer, directory / TOKENIZER_FILE)
        write_record(directory, record)
        events = execute_run(directory, record, tokenizer, None, run_context, cluster, ngrams)
        yield from _add_advice(events, partial(advise, encoded, tokens, tokenizer, record.training.window))


def _choose_threads(resolved: ResolvedRequest, run_context: RunContext) -> int:
    """Processor threads of all workers, of which more than there are processors cause a warning."""
    useful = total_threads(run_context.cluster)
    threads = resolved.training.threads or useful
    if threads > useful:
        run_context.notify(
            f"warning: {threads} threads, but only {useful} available: the plan expects the speed of {useful}"
        )
    return threads


def _start_ngrams(
    order: int,
    tokenizer: Tokenizer,
    tokens: tuple[Tokens, Tokens],
    resolved: ResolvedRequest,
    threads: int,
    *,
    has_gate: bool,
) -> NgramEstimation:
    return NgramEstimation.start(
        order,
        tokenizer.vocabulary_size,
        *tokens,
        threads,
        max_tokens=resolved.max_counted_tokens(len(tokens[0])),
        in_own_process=resolved.training.architecture != "ngram",
        has_gate=has_gate,
    )


def _add_advice(events: Iterator[Event], advise_person: Callable[[], Iterator[str]]) -> Iterator[Event]:
    for event in events:
        yield dataclasses.replace(event, advice=tuple(advise_person())) if isinstance(event, RunStarted) else event


def _encode(
    texts: tuple[Corpus, Corpus | None, Split | None],
    tokenizer: Tokenizer,
    directory: Path,
    request: RunRequest,
    resolved: ResolvedRequest,
    run_context: RunContext,
    media: MediaConfig | None,
) -> tuple[CorpusRecord, tuple[Tokens, Tokens], EncodedCorpus]:
    """Writes the token files of a corpus, whose split or validation text is in `texts` too.

    Returns the record of the corpus, the training and the validation tokens, and what was written.
    """
    corpus, validation, split = texts
    text = corpus.with_progress(run_context.start_progress("encoding", corpus.size))
    path = directory / TOKENS_FILE
    encoded = encode_corpus_checked(text, tokenizer, path, split, resolved, run_context.notify, validation, media)
    if resolved.pretrained is not None and resolved.pretrained.bundle.config.media is not None:
        encoded = dataclasses.replace(encoded, media=media)  # not with the mean and deviation of this training share
    record = describe_corpus(corpus, encoded, validation)
    training_tokens = record.count_training_tokens(resolved.validation_split)
    tokens = open_split(directory, tokenizer, record, training_tokens, resolved.random_seed, media)
    files = *record.files, *record.validation_files  # not those of signals, which have no stamp
    record = dataclasses.replace(
        record,
        validation_targets=tokens[1].num_targets,
        validation_bytes=count_target_bytes(tokens[1], tokenizer),
        files_stamp=None if media else stamp_files(files, time.monotonic() - run_context.started),
    )
    if resolved.config_run is not None:
        check_repeated(request, resolved.config_run, record, tokenizer, run_context.notify)
    return record, tokens, encoded


def _max_gate_epochs(
    resolved: ResolvedRequest, workers: int, ngram_order: int, tokenizer: Tokenizer, training_tokens: int
) -> float:
    """The number of epochs up to which the network gets an n-gram gate; 0: it gets none.

    A run that repeats another, or starts from pretrained weights, has a gate if that one has.
    """
    if workers > 1 or not allows_gate(resolved.training, ngram_order, tokenizer.vocabulary_size, training_tokens):
        return 0.0
    if resolved.config_run is not None and resolved.config_run.model.has_network:
        return math.inf if resolved.config_run.model.ngram_gate == ngram_order else 0.0
    if resolved.pretrained is not None:
        return math.inf if resolved.pretrained.bundle.config.ngram_gate == ngram_order else 0.0
    return MAX_GATE_EPOCHS


def _plan_run(
    resolved: ResolvedRequest,
    corpus: CorpusRecord,
    tokenizer: Tokenizer,
    checkpoint_every: str,
    threads: int,
    cluster: "Cluster | None",
    started: float,
    *,
    ngram_order: int,
    **chosen: Any,
) -> tuple[RunRecord, float]:
    """Chooses all settings; returns them and the measured floating-point operations per second of all workers.

    `threads` are those of all workers; without a `cluster` the model is an n-gram model; `started` is when the command
    started, by `time.monotonic`; `chosen` are further arguments of `choose_settings`.
    """
    request, pretrained, config_run = resolved.training, resolved.pretrained, resolved.config_run
    training_tokens = corpus.count_training_tokens(resolved.validation_split)
    flops = 0.0
    if cluster is None:
        training = ngram_training(request, ngram_order, threads)
        plan = Plan(ngram_config(tokenizer.vocabulary_size), training, request.budget)
    else:
        precision = preferred_precision() if request.precision == "auto" else request.precision
        flops = matmul_speed(precision, max(1, threads // cluster.size)) * cluster.size
        plan = choose_settings(
            request,
            vocabulary_size=tokenizer.vocabulary_size,
            training_tokens=training_tokens,
            validation_tokens=min(corpus.tokens - training_tokens, MAX_VALIDATION_TOKENS),
            threads=threads,
            precision=precision,
            flops=flops,
            elapsed_seconds=time.monotonic() - started,
            is_pretrained=pretrained is not None,
            earlier_config=config_run.training if config_run and config_run.model.has_network else None,
            replicas=cluster.replicas,
            ngram_order=ngram_order,
            **chosen,
        )
    record = RunRecord(
        model=dataclasses.replace(plan.model, exponents_adapt=not corpus.has_documents),
        training=dataclasses.replace(plan.training, ngram_tokens=resolved.max_counted_tokens(training_tokens)),
        budget_seconds=plan.budget_seconds,
        validation_split=resolved.validation_split,
        corpus=corpus,
        tokenizer=tokenizer.kind,
        vocabulary_sha256=tokenizer_digest(tokenizer),
        init_from=pretrained.record if pretrained else None,
        checkpoint_every=checkpoint_every,
        workers=cluster.size if cluster else 1,
        versions=current_versions(),
    )
    return record, flops


def _report_plan(run: RunStarted, flops: float, started: float) -> RunPlanned:
    cost = estimate_cost(
        run.model,
        run.training,
        training_tokens=run.training_tokens,
        validation_tokens=run.validation_tokens,
        flops=flops,
        budget_seconds=run.budget_seconds,
        elapsed_seconds=time.monotonic() - started,
        workers=run.workers,
    )
    return RunPlanned(run, cost)
