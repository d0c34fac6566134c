"""A new training run: what is decided, checked and prepared for it. `recorded_run.py` does the rest.

run.json  tokenizer.json  history.jsonl  checkpoints/step-00001200/  tokens.bin, lock (until it has finished)
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.checkpoints.run_directory import TOKENS_FILE
from quickfox.config.training import TrainingRequest
from quickfox.data.dataset import count_training_tokens
from quickfox.text.corpus import Corpus
from quickfox.tokenizers.serialization import save_tokenizer
from quickfox.training.distributed.messaging import Control
from quickfox.training.distributed.rendezvous import connect_workers
from quickfox.training.engine.events import Event, RunContext, RunPlanned
from quickfox.training.planning.auto_config import choose_settings, choose_window
from quickfox.training.planning.cost import check_disk_space, check_memory, estimate_cost
from quickfox.training.run.dataset import (
    TOKENIZER_FILE,
    choose_tokenizer,
    describe_corpus,
    encode_corpus_checked,
    tokenizer_digest,
)
from quickfox.training.run.directory import make_directory, new_run
from quickfox.training.run.execute import execute_run
from quickfox.training.run.record import CheckpointInterval, RunRecord, current_versions, write_record
from quickfox.training.run.transfer import resolve_request
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
    pass


def start_run(
    corpus: Corpus,
    request: TrainingRequest,
    *,
    output: Path | None,
    vocabulary_path: Path | None,
    name: str,
    run_context: RunContext,
    checkpoint_every: str | None = None,
    config_from: Path | None = None,
    init_from: Path | None = None,
    dry_run: bool = False,
) -> Iterator[Event]:
    """Trains a model on `corpus`, telling what happens; every `Validated` event follows a committed checkpoint.

    Args:
        corpus: the text.
        request: the settings asked for.
        output: the run directory; None: `runs/NAME`, numbered when taken.
        vocabulary_path: a vocabulary file to use; None: all characters of the corpus.
        name: of the run, when `output` is None.
        surroundings: of the run.
        checkpoint_every: see CheckpointInterval; None: the default.
        repeats: a run or its `run.json`, whose settings are used where `request` leaves them open.
        init_from: a model whose weights to start with; None: fresh ones.
        dry_run: whether to decide everything, tell it in one `RunPlanned`, and leave nothing behind.

    Raises:
        QuickfoxError: any of its children; nothing is created when the input is at fault.
    """
    spec = run_context.cluster
    check_batch_divides(spec, request.batch_size)
    with connect_workers(spec, handshake(request, resumes=False), run_context.abort) as control:
        run_context = check_peers_while_reading(run_context, control)
        if spec is not None and not spec.is_chief:
            yield from run_worker(control, spec, corpus, run_context)
            return
        yield from _run_chief(
            corpus,
            request,
            output=output,
            vocabulary_path=vocabulary_path,
            name=name,
            run_context=run_context,
            checkpoint_every=checkpoint_every,
            config_from=config_from,
            init_from=init_from,
            dry_run=dry_run,
            control=control,
        )


def _run_chief(
    corpus: Corpus,
    request: TrainingRequest,
    *,
    output: Path | None,
    vocabulary_path: Path | None,
    name: str,
    run_context: RunContext,
    checkpoint_every: str | None,
    config_from: Path | None,
    init_from: Path | None,
    dry_run: bool,
    control: Control,
) -> Iterator[Event]:
    """`start_run`, as the chief of the others."""
    spec = run_context.cluster
    interval = CheckpointInterval.parse(checkpoint_every)
    request, split, repeated, start = resolve_request(request, config_from, init_from, vocabulary_path)
    counted = corpus.with_progress(run_context.start_progress("vocabulary", corpus.size))
    tokenizer = choose_tokenizer(counted, vocabulary_path, request, None if start is None else start.bundle.tokenizer)
    threads = request.threads or total_threads(spec)
    send_tokenizer(control, tokenizer)
    directory, made = make_directory(output, name)
    tokens_path = directory / TOKENS_FILE
    with new_run(directory, made):
        read = corpus.with_progress(run_context.start_progress("encoding", corpus.size))
        encoded = encode_corpus_checked(read, tokenizer, tokens_path, choose_window(request), split, run_context.notify)
        check_same_text(control, spec, encoded.digest)
        cluster = start_tensorflow_on_all(control, spec, threads)
        if repeated is not None and repeated.corpus.sha256 != encoded.digest:
            run_context.notify(f"the text is not the one of {config_from}: its settings are used, the run will differ")
        training_tokens = count_training_tokens(encoded.tokens, split)
        precision = preferred_precision() if request.precision == "auto" else request.precision
        flops = matmul_speed(precision, threads_per_worker(spec, threads)) * cluster.size
        plan = choose_settings(
            request,
            vocabulary_size=tokenizer.vocabulary_size,
            training_tokens=training_tokens,
            validation_tokens=encoded.tokens - training_tokens,
            threads=threads,
            precision=precision,
            flops=flops,
            elapsed_seconds=time.monotonic() - run_context.started,
            is_pretrained=start is not None,
            earlier_config=None if repeated is None else repeated.training,
            replicas=cluster.replicas,
        )
        if dry_run:  # before the checks, so that who asks for too much is told how much it is
            cost = estimate_cost(
                plan.model,
                plan.training,
                training_tokens=training_tokens,
                validation_tokens=encoded.tokens - training_tokens,
                flops=flops,
                budget_seconds=plan.budget_seconds,
                elapsed_seconds=time.monotonic() - run_context.started,
                workers=cluster.size,
            )
            yield RunPlanned(
                directory=directory,
                model=plan.model,
                training=plan.training,
                budget_seconds=plan.budget_seconds,
                parameters=cost.parameters,
                training_tokens=training_tokens,
                validation_tokens=encoded.tokens - training_tokens,
                cost=cost,
                workers=cluster.size,
            )
        check_memory(plan.model, plan.training, cluster.size)
        check_disk_space(directory, plan.model, plan.training)
        if dry_run:
            control.send(nothing_to_do=True)
            return  # without a record, what was made for the run is removed
        record = RunRecord(
            model=plan.model,
            training=plan.training,
            budget_seconds=plan.budget_seconds,
            validation_split=split,
            corpus=describe_corpus(corpus, encoded, tokens_path),
            tokenizer=tokenizer.kind,
            vocabulary_sha256=tokenizer_digest(tokenizer),
            init_from=None if start is None else start.record,
            checkpoint_every=str(interval),
            workers=cluster.size,
            versions=current_versions(),
        )
        save_tokenizer(tokenizer, directory / TOKENIZER_FILE)
        write_record(directory, record)
        yield from execute_run(directory, record, tokenizer, tokens_path, None, run_context, cluster)
