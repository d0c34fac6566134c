"""What the curves of a run and its held-out text say, in words, with advice."""

from dataclasses import dataclass

from quickfox.report.loading import ReportedRun
from quickfox.report.measures import NORMAL_97, TextMeasures
from quickfox.training.run.history import Validation

RISE = 0.01
"""Relative rise of the validation loss above its lowest that counts as overfitting."""

GAP = 0.15
"""Relative difference of validation and training loss that is pointed out."""

DROP = 0.01
"""Relative fall of the validation loss within the last fifth of the steps that counts as still learning."""

MANY_EPOCHS = 10
"""Passes over the text below which a run with a single validation is probably under-trained."""

JUMP = 1.25
"""Factor by which a training loss above its lowest so far counts as divergence."""

WIDE = 0.03
"""Relative half width of the interval of 95 % above which the held-out text is too small."""


@dataclass(frozen=True)
class Finding:
    """A statement about a run, and what to do.

    Attributes:
        kind: "good" or "warning".
        title: in a few words.
        text: the statement with its numbers, and the advice.
    """

    kind: str
    title: str
    text: str


def diagnose(run: ReportedRun, measures: TextMeasures | None) -> list[Finding]:
    """What is found, most important first; at least one finding."""
    validations = [each for each in run.history.validations if each.validation_loss is not None]
    candidates = [
        _divergence(run),
        _overfitting(run, validations),
        _under_training(run, validations),
        _small_held_out(measures),
        _unfinished(run),
    ]
    found = [finding for finding in candidates if finding]
    if not validations:
        text = "The run has no validation loss, so that overfitting and under-training cannot be told apart."
        found.append(Finding("warning", "Nothing to judge by", f"{text} Hold out a part of the text, or train longer."))
    if not found:
        text = "The validation loss has stopped falling, it has not risen again, and the held-out text is long enough."
        found.append(Finding("good", "No problem found", text))
    return found


def _divergence(run: ReportedRun) -> Finding | None:
    losses = [step.train_loss for step in run.history.steps]
    if len(losses) < 3:
        return None
    lowest, last = min(losses), sum(losses[-3:]) / 3
    if last <= JUMP * lowest + 0.1:
        return None
    text = (
        f"The training loss ends at {last:.2f}, above its lowest of {lowest:.2f}. "
        f"Choose a learning rate below {run.record.training.learning_rate:g}."
    )
    return Finding("warning", "Divergence", text)


def _overfitting(run: ReportedRun, validations: list[Validation]) -> Finding | None:
    if not validations:
        return None
    best = min(validations, key=lambda each: each.validation_loss or 0.0)
    last = validations[-1]
    assert best.validation_loss is not None
    assert last.validation_loss is not None
    advice = "A dropout, a smaller model, fewer epochs or more text would help."
    if last.validation_loss > (1 + RISE) * best.validation_loss:
        text = (
            f"The validation loss was lowest at step {best.step:,} ({best.validation_loss:.4f}) and rose to "
            f"{last.validation_loss:.4f}. The checkpoint of step {best.step:,} is used. {advice}"
        )
        return Finding("warning", "Overfitting", text)
    # What was trained: the network alone, or with an n-gram gate nearly the whole model.
    is_alone = last.network_loss is not None and not run.record.model.ngram_gate
    held_out_loss = last.network_loss if is_alone else last.validation_loss
    assert held_out_loss is not None
    if last.train_loss is not None and held_out_loss > (1 + GAP) * last.train_loss:
        text = (
            f"The training loss, {last.train_loss:.4f}, is well below that on held-out text, {held_out_loss:.4f}"
            f"{' (network alone)' if is_alone else ''}: the model begins to learn the text by heart. {advice}"
        )
        return Finding("warning", "First signs of overfitting", text)
    return None


def _under_training(run: ReportedRun, validations: list[Validation]) -> Finding | None:
    if run.record.training.steps <= 1:
        return None
    advice = "Training longer (--budget, --epochs or --steps) would lower it."
    if len(validations) > 1:
        last = validations[-1]
        before = max(
            (each for each in validations[:-1] if each.step <= 0.8 * last.step),
            key=lambda each: each.step,
            default=validations[0],
        )
        assert last.validation_loss is not None
        assert before.validation_loss is not None
        if before.validation_loss - last.validation_loss > DROP * last.validation_loss:
            text = (
                f"The validation loss still fell from {before.validation_loss:.4f} (step {before.step:,}) to "
                f"{last.validation_loss:.4f} at the end. {advice}"
            )
            return Finding("warning", "Under-training", text)
    elif validations and validations[-1].epoch < MANY_EPOCHS:
        text = (
            f"There is one validation only, after {validations[-1].epoch:.1f} passes over the text, so that it is not "
            f"known whether the loss has stopped falling. {advice}"
        )
        return Finding("warning", "Probably under-trained", text)
    return None


def _small_held_out(measures: TextMeasures | None) -> Finding | None:
    if measures is None:
        return None
    if measures.error is None or NORMAL_97 * measures.error > WIDE * measures.bits_per_byte:
        width = "unknown" if measures.error is None else f"{NORMAL_97 * measures.error:.3f} bits per byte"
        text = (
            f"The held-out text of {len(measures.text):,} characters is short: another one of this length could "
            f"differ by {width}. Hold out more text before comparing models."
        )
        return Finding("warning", "Held-out text too small", text)
    return None


def _unfinished(run: ReportedRun) -> Finding | None:
    history = run.history
    step = max([each.step for each in history.steps] + [each.step for each in history.validations], default=0)
    total = dict(run.record.training.replans)
    planned = total[max(total)] if total else run.record.training.steps
    if step >= planned or (run.record.training.patience is not None and history.validations):
        return None
    text = f"The history ends near step {step:,} of {planned:,}. `llm train --resume {run.directory}` continues it."
    return Finding("warning", "The run is not finished", text)
