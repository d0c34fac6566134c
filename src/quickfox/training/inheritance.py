"""What a new run takes over: the settings of a run to repeat, the weights and sizes of a model to start from."""

from pathlib import Path

from quickfox.config import TrainingRequest
from quickfox.errors import UsageError
from quickfox.training.run_record import RunRecord, read_record
from quickfox.training.settings import DEFAULT_VALIDATION_SPLIT, repeated_request, repeated_tokenizer
from quickfox.training.transfer import Start, open_start, reopen_start, taken_over


def inherited(
    request: TrainingRequest, repeats: Path | None, init_from: Path | None, vocabulary_path: Path | None
) -> tuple[TrainingRequest, float, RunRecord | None, Start | None]:
    """The request with what it leaves open taken from the others.

    Args:
        request: what the person asked for.
        repeats: a run or its `run.json`, whose settings are used where `request` leaves them open.
        init_from: a model whose weights to start with; None: that of the run to repeat, if it had one.
        vocabulary_path: the vocabulary's file, if one is given.

    Returns:
        The request, the share of the text to hold out, the run to repeat and the model to start from.

    Raises:
        UsageError: embeddings are to be frozen that were never learnt.
        QuickfoxError: any of its other children: the run or the model cannot be read.
    """
    repeated = None if repeats is None else read_record(repeats)
    split = request.validation_split
    if repeated is not None:
        request = repeated_request(request, repeated.model, repeated.training)
        if vocabulary_path is None and init_from is None and repeated.init_from is None:
            request = repeated_tokenizer(request, repeated.tokenizer, repeated.model.vocabulary_size)
        split = repeated.validation_split if split is None else split
    start = None
    if init_from is not None:
        start = open_start(init_from)
    elif repeated is not None and repeated.init_from is not None:
        start = reopen_start(repeated.init_from)
    if start is not None:
        request = taken_over(request, start.bundle.config)
    elif request.freeze_embeddings:
        raise UsageError("--freeze-embeddings is for --init-from: fresh embeddings must be learnt")
    return request, DEFAULT_VALIDATION_SPLIT if split is None else split, repeated, start
