"""How far a run has come: everything about it, beside its tensors, that a resumed run must know. Plain numbers."""

from dataclasses import dataclass

LOSS_HORIZON = 50  # steps over which the displayed training loss is averaged


@dataclass(kw_only=True)
class Progress:
    """The scalars of a training run; part of each checkpoint.

    Attributes:
        step: optimizer steps done. It is the data cursor too: a batch is a function of (random seed, step).
        total_steps: the plan so far.
        loss_sum, loss_count: of the training losses since the last validation.
        running_loss: an exponential mean of the training loss; None before the first step.
        train_loss: the mean that the last validation told; None before it.
        validation_loss, best_validation_loss: nats per token; None before the first, or without a held-out text.
        validations_without_improvement: since the best one.
        seconds: wall time of the run in all its parts; set when a checkpoint is made.
        timed_steps, timed_seconds: steps, and what they alone took: no start-up, validation or saving.
    """

    step: int = 0
    total_steps: int
    loss_sum: float = 0.0
    loss_count: int = 0
    running_loss: float | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    best_validation_loss: float | None = None
    validations_without_improvement: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0

    def note_losses(self, losses: list[float]) -> None:
        """Counts steps, given the training loss of each."""
        for loss in losses:
            self.loss_sum += loss
            previous = loss if self.running_loss is None else self.running_loss
            self.running_loss = previous + (loss - previous) / LOSS_HORIZON
        self.loss_count += len(losses)
        self.step += len(losses)

    def note_speed(self, steps: int, seconds: float) -> None:
        """Counts what steps took."""
        self.timed_steps += steps
        self.timed_seconds += seconds

    def note_validation(self, loss: float | None) -> bool:
        """Takes down a validation loss; returns whether it is the best so far (without one, always).

        There must have been a step since the last time.
        """
        self.train_loss = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        self.validation_loss = loss
        if loss is None:
            return True
        if self.best_validation_loss is None or loss < self.best_validation_loss:
            self.best_validation_loss = loss
            self.validations_without_improvement = 0
            return True
        self.validations_without_improvement += 1
        return False

    def is_finished(self, patience: int | None) -> bool:
        """Whether all steps are done, or `patience` validations in a row have brought no improvement."""
        out_of_patience = patience is not None and self.validations_without_improvement >= patience
        return self.step >= self.total_steps or out_of_patience

    @property
    def timed_steps_per_second(self) -> float:
        """Steps per second of training alone; 0 before one was timed."""
        return self.timed_steps / self.timed_seconds if self.timed_seconds else 0.0
