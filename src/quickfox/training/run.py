"""One training run from corpus to finished model, new or resumed: what is decided, checked and prepared for it.

    run.json  tokenizer.json  history.jsonl  checkpoints/step-00001200/  tokens.bin, lock (until it has finished)

The trainer trains and writes nothing, the recorder writes and trains nothing. A resumed run takes the same way as a
new one, only from a checkpoint on.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quickfox.config import TrainingRequest
from quickfox.errors import DataError
from quickfox.models.parameters import parameter_count
from quickfox.runs import TOKENS_FILE
from quickfox.text.corpus import Corpus
from quickfox.text.token_store import count_training_tokens, open_corpus_tokens, remove_tokens, split_tokens
from quickfox.text.tokenizers.file import save_tokenizer
from quickfox.text.tokenizers.protocol import Tokenizer
from quickfox.training.checkpointing import CheckpointInterval
from quickfox.training.control import Control
from quickfox.training.cost import estimate_cost
from quickfox.training.events import (
    Event,
    RunFinished,
    RunInterrupted,
    RunPlanned,
    RunStarted,
    Surroundings,
)
from quickfox.training.inheritance import inherited
from quickfox.training.progress import Progress
from quickfox.training.recorder import Recorder, run_finished
from quickfox.training.rendezvous import joined
from quickfox.training.resources import check_disk_space, check_memory
from quickfox.training.resuming import (
    ResumePoint,
    discard_after,
    extended,
    find_run,
    newest_resume_point,
    refuse_changes,
)
from quickfox.training.run_folder import make_directory, new_run
from quickfox.training.run_lock import locked
from quickfox.training.run_record import (
    RunRecord,
    current_versions,
    cut_history,
    read_record,
    write_record,
)
from quickfox.training.run_text import (
    TOKENIZER_FILE,
    choose_tokenizer,
    describe_corpus,
    encode_new,
    reuse_tokens,
    tokenizer_digest,
)
from quickfox.training.settings import (
    choose_settings,
    choose_window,
)
from quickfox.training.tensorflow_runtime import import_tensorflow, matmul_speed, preferred_precision
from quickfox.training.transfer import reopen_start, transferred
from quickfox.training.working_together import (
    all_threads,
    attentive,
    compare_texts,
    follow,
    greeting,
    refuse_indivisible_batch,
    refuse_indivisible_devices,
    refuse_standard_input,
    shared_anew,
    start_together,
    tell_run,
    tell_text,
    threads_per_worker,
)

if TYPE_CHECKING:
    from quickfox.training.cluster import Cluster


def train(
    corpus: Corpus,
    request: TrainingRequest,
    *,
    output: Path | None,
    vocabulary_path: Path | None,
    name: str,
    surroundings: Surroundings,
    checkpoint_every: str | None = None,
    repeats: Path | None = None,
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
    spec = surroundings.cluster
    refuse_indivisible_batch(spec, request.batch_size)
    with joined(spec, greeting(request, resumes=False), surroundings.leave) as control:
        surroundings = attentive(surroundings, control)
        if spec is not None and not spec.is_chief:
            yield from follow(control, spec, corpus, surroundings)
            return
        yield from _lead(
            corpus,
            request,
            output=output,
            vocabulary_path=vocabulary_path,
            name=name,
            surroundings=surroundings,
            checkpoint_every=checkpoint_every,
            repeats=repeats,
            init_from=init_from,
            dry_run=dry_run,
            control=control,
        )


def _lead(
    corpus: Corpus,
    request: TrainingRequest,
    *,
    output: Path | None,
    vocabulary_path: Path | None,
    name: str,
    surroundings: Surroundings,
    checkpoint_every: str | None,
    repeats: Path | None,
    init_from: Path | None,
    dry_run: bool,
    control: Control,
) -> Iterator[Event]:
    """`train`, as the chief of the others."""
    spec = surroundings.cluster
    interval = CheckpointInterval.parse(checkpoint_every)
    request, split, repeated, start = inherited(request, repeats, init_from, vocabulary_path)
    counted = corpus.watched(surroundings.reading("vocabulary", corpus.size))
    tokenizer = choose_tokenizer(counted, vocabulary_path, request, None if start is None else start.bundle.tokenizer)
    threads = request.threads or all_threads(spec)
    tell_text(control, tokenizer)
    directory, made = make_directory(output, name)
    tokens_path = directory / TOKENS_FILE
    with new_run(directory, made):
        read = corpus.watched(surroundings.reading("encoding", corpus.size))
        encoded = encode_new(read, tokenizer, tokens_path, choose_window(request), split, surroundings.notice)
        compare_texts(control, spec, encoded.digest)
        cluster = start_together(control, spec, threads)
        if repeated is not None and repeated.corpus.sha256 != encoded.digest:
            surroundings.notice(f"the text is not the one of {repeats}: its settings are used, the run will differ")
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
            seconds_gone=time.monotonic() - surroundings.started,
            is_transferred=start is not None,
            repeated=None if repeated is None else repeated.training,
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
                seconds_gone=time.monotonic() - surroundings.started,
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
            control.tell(nothing_to_do=True)
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
        yield from _train(directory, record, tokenizer, tokens_path, None, surroundings, cluster)


def resume(
    run: Path | None,
    request: TrainingRequest,
    *,
    surroundings: Surroundings,
    checkpoint_every: str | None = None,
) -> Iterator[Event]:
    """Goes on with a run from its newest undamaged checkpoint, as if it had never stopped.

    Args:
        run: its folder; None: the newest under `runs`.
        request: what may differ: its length. Every other setting given must be the run's own.
        surroundings: of the run; its budget counts the time of earlier parts too.
        checkpoint_every: see CheckpointInterval; None: as before.

    Raises:
        UsageError: a setting is not the run's own.
        DataError: the text or vocabulary is not the run's, or no checkpoint is undamaged.
        QuickfoxError: any of its other children.
    """
    spec = surroundings.cluster
    with joined(spec, greeting(request, resumes=True), surroundings.leave) as control:
        surroundings = attentive(surroundings, control)
        if spec is not None and not spec.is_chief:
            yield from follow(control, spec, None, surroundings)
        else:
            yield from _lead_on(find_run(run, surroundings.notice), request, surroundings, checkpoint_every, control)


def _lead_on(
    directory: Path,
    request: TrainingRequest,
    surroundings: Surroundings,
    checkpoint_every: str | None,
    control: Control,
) -> Iterator[Event]:
    """`resume`, as the chief of the others."""
    with locked(directory):
        record = read_record(directory)
        refuse_changes(request, record)
        refuse_indivisible_batch(surroundings.cluster, record.training.batch_size)
        refuse_standard_input(surroundings.cluster, record.corpus.files)
        record = shared_anew(record, surroundings)
        if checkpoint_every is not None:
            record = dataclasses.replace(record, checkpoint_every=str(CheckpointInterval.parse(checkpoint_every)))
        point = newest_resume_point(directory, record, surroundings.notice)
        progress = point.progress if point else Progress(total_steps=record.training.steps)
        record, progress = extended(record, progress, request, surroundings.notice)
        if point is not None:
            point = dataclasses.replace(point, progress=progress)
            if progress.is_finished(record.training.patience):
                surroundings.notice(f"{directory} is finished; to go on, ask for more --epochs, --steps or --budget")
                control.tell(nothing_to_do=True)
                yield run_finished(directory, record, progress)
                return
        if record.versions != current_versions():
            surroundings.notice("other versions of programs than before: the run will not be the same to the last bit")
        yield from _resume(directory, record, point, progress, surroundings, control)


def _resume(
    directory: Path,
    record: RunRecord,
    point: ResumePoint | None,
    progress: Progress,
    surroundings: Surroundings,
    control: Control,
) -> Iterator[Event]:
    tokens_path = directory / TOKENS_FILE
    import_tensorflow()  # before anything is written: it may not be there
    tokenizer = reuse_tokens(directory, record, tokens_path, surroundings)
    if point and point.bundle.tokenizer != tokenizer:
        raise DataError(f"{directory}: the vocabulary of its newest checkpoint is not the run's")
    check_disk_space(directory, record.model, record.training)
    tell_text(control, tokenizer, record.corpus.files)
    compare_texts(control, surroundings.cluster, record.corpus.sha256)
    cluster = start_together(control, surroundings.cluster, record.training.threads)
    refuse_indivisible_devices(cluster, record.training.batch_size)
    discard_after(directory, progress.step)
    write_record(directory, record)
    cut_history(directory, progress.step)
    earlier = dataclasses.replace(surroundings, started=surroundings.started - progress.seconds)
    yield from _train(directory, record, tokenizer, tokens_path, point, earlier, cluster)


def _train(
    directory: Path,
    record: RunRecord,
    tokenizer: Tokenizer,
    tokens_path: Path,
    point: ResumePoint | None,
    surroundings: Surroundings,
    cluster: "Cluster",
) -> Iterator[Event]:
    """Trains as recorded, from `point` on."""
    tokens = open_corpus_tokens(tokens_path, tokenizer.token_dtype, has_loss_mask=record.corpus.has_documents)
    training_tokens, validation_tokens = split_tokens(tokens, record.validation_split)
    yield RunStarted(
        directory=directory,
        model=record.model,
        training=record.training,
        budget_seconds=record.budget_seconds,
        parameters=parameter_count(record.model),
        training_tokens=len(training_tokens),
        validation_tokens=len(validation_tokens),
        step=point.progress.step if point else 0,
    )
    from quickfox.training.trainer import Trainer  # needs TensorFlow, which has been started by now

    control = cluster.control
    tell_run(control, directory, record)
    interval = CheckpointInterval.parse(record.checkpoint_every)
    trainer = Trainer(
        record.model,
        record.training,
        training_tokens,
        validation_tokens,
        surroundings.started,
        record.budget_seconds,
        interval.steps,
        cluster,
    )
    if point is not None:
        trainer.restore(point.bundle.parameters, point.tensors, point.progress)
    elif record.init_from is not None:
        trainer.start_from(transferred(trainer.model_tensors(), tokenizer, reopen_start(record.init_from).bundle))

    def stop_requested() -> bool:
        return surroundings.stop_requested() or control.stop_requested()

    for event in Recorder(directory, record, tokenizer, trainer, interval).events(stop_requested):
        if isinstance(event, RunFinished) and not surroundings.keep_tokens:
            remove_tokens(tokens_path)
        if isinstance(event, RunFinished | RunInterrupted):
            control.tell(do="end", interrupted=isinstance(event, RunInterrupted))
        yield event
