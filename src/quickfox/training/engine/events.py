"""What a training run tells while it runs, and what it is told.

Plain data: the display and the tests read it without TensorFlow.

Losses are in nats per token; seconds count from the start of the run's clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quickfox.config.model import ModelConfig
from quickfox.config.training import TrainingConfig
from quickfox.errors import QuickfoxError
from quickfox.training.distributed.cluster_spec import ClusterSpec
from quickfox.training.planning.cost import Cost


@dataclass(frozen=True)
class RunStarted:
    """The run directory exists, everything is decided, the next step comes now."""

    directory: Path
    model: ModelConfig
    training: TrainingConfig
    budget_seconds: float | None  # wall time to end within; `training.steps` is then a first estimate
    parameters: int
    training_tokens: int
    validation_tokens: int
    step: int = 0  # optimizer steps done in earlier parts of a resumed run
    workers: int = 1


@dataclass(frozen=True)
class RunPlanned:
    """Everything is decided, and would start now if more than the plan had been asked for."""

    directory: Path
    model: ModelConfig
    training: TrainingConfig
    budget_seconds: float | None
    parameters: int
    training_tokens: int
    validation_tokens: int
    cost: Cost
    workers: int


@dataclass(frozen=True)
class StepsCompleted:
    """Some optimizer steps are done (several at a time)."""

    step: int
    total_steps: int
    epoch: float  # passes over the training text so far, fractional
    train_loss: float  # running mean
    tokens_per_second: float
    learning_rate: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class Validated:
    """The held-out text was measured (or, without one, an interval has passed) and a checkpoint committed."""

    step: int
    total_steps: int
    epoch: float
    tokens: int
    train_loss: float  # mean since the last such event
    validation_loss: float | None
    best_validation_loss: float | None
    is_best: bool
    tokens_per_second: float
    learning_rate: float
    seconds: float
    sample: str  # a little text of the model's own


@dataclass(frozen=True)
class Replanned:
    """The number of steps was set anew from the measured speed, so that a time budget is met."""

    step: int
    total_steps: int


@dataclass(frozen=True)
class RunFinished:
    """The end; the fields are those of `llm train --json`, but for the seconds of the whole command."""

    run: Path
    checkpoint: Path
    epochs: float
    steps: int
    tokens: int
    tokens_per_second: float
    train_loss: float | None
    validation_loss: float | None
    best_validation_loss: float | None
    parameters: int
    stopped_early: bool
    workers: int = 1


@dataclass(frozen=True)
class RunInterrupted:
    """The run was asked to stop, and has saved where it is; the last event."""

    run: Path
    step: int


@dataclass(frozen=True)
class WorkerStarted:
    """This process trains with others, and is not the one that shows how it goes; its first event."""


@dataclass(frozen=True)
class WorkerFinished:
    """The run has finished, as its chief tells; the last event of another worker."""


Event = (
    RunPlanned
    | RunStarted
    | StepsCompleted
    | Validated
    | Replanned
    | RunFinished
    | RunInterrupted
    | WorkerStarted
    | WorkerFinished
)


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run needs to know of the program it runs in.

    Attributes:
        notice: told in one line what the person should know.
        started: when the command started, by `time.monotonic`: a budget counts from there.
        stop_requested: asked after some steps; once true, the run saves where it is and ends.
        reading: asked, before a text is read, with what it is read for and how many bytes it has, for somebody to tell
            as they are read.
        keep_tokens: whether the encoded text stays in the run's folder when the run has finished.
        cluster: the workers to train with; None: this process trains alone.
        leave: ends the process with a message, because a peer is lost and this process hangs waiting for it.
    """

    notify: Callable[[str], None]
    started: float
    stop_requested: Callable[[], bool] = lambda: False
    start_progress: Callable[[str, int], Callable[[int], None]] = lambda _stage, _size: lambda _read: None
    keep_tokens: bool = False
    cluster: ClusterSpec | None = None
    abort: Callable[[QuickfoxError], None] = lambda _: None
