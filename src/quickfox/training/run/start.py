"""Start a new run: choose its tokenizer and settings, check them against the machine, write `run.json`, and train.

A run directory holds run.json, tokenizer.json, history.jsonl, checkpoints/step-00001200/ and, until the run has
finished, tokens.bin and lock.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.checkpoints.run_directory import TOKENS_FILE
from quickfox.data.dataset import EncodedCorpus, count_training_tokens
from quickfox.text.corpus import STANDARD_INPUT, Corpus
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
from quickfox.training.run.record import CheckpointInterval, RunRecord, current_versions, write_record
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
    counted = corpus.with_progress(run_context.start_progress("vocabulary", corpus.size))
    pretrained = None if resolved.pretrained is None else resolved.pretrained.bundle.tokenizer
    tokenizer = choose_tokenizer(counted, request.vocabulary_path, resolved.training, pretrained)
    threads = resolved.training.threads or total_threads(spec)
    send_tokenizer(control, tokenizer)
    with new_run(request.output, name) as directory:
        encoded = _encode(corpus, tokenizer, directory, resolved, run_context)
        check_same_text(control, spec, encoded.digest)
        cluster = start_tensorflow_on_all(control, spec, threads)
        if resolved.config_run is not None and resolved.config_run.corpus.sha256 != encoded.digest:
            run_context.notify(
                f"the text is not that of {request.config_from}: its settings are used, but the result will differ"
            )
        plan, planned = _plan(directory, resolved, tokenizer, encoded, threads, run_context, cluster)
        if request.dry_run:
            yield planned()  # before the checks, so that the cost of an excessive plan is reported too
        check_memory(plan.model, plan.training, cluster.size)
        check_disk_space(directory, plan.model, plan.training)
        if request.dry_run:
            control.send(no_training=True)
            return
        ...
