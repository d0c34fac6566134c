"""The sections of the report of one run."""

import math
import shlex

from quickfox.models.parameters import parameter_count
from quickfox.report.curves import draw_curves
from quickfox.report.diagnosis import diagnose
from quickfox.report.loading import ReportedRun, RunText
from quickfox.report.markup import Markup, element, join, paragraph, quote, section, table
from quickfox.report.measures import NORMAL_97, TextMeasures
from quickfox.report.text_sections import text_sections
from quickfox.system.units import format_duration
from quickfox.training.run.history import sparse

SAMPLED_VALIDATIONS = 8


def report_run(run: ReportedRun, text: RunText | None, measures: TextMeasures | None, threads: int) -> list[Markup]:
    """All sections of the report of one run; what cannot be shown is a sentence."""
    sections = [_cards(run, measures), _findings(run, measures)]
    sections.append(section("Curves", draw_curves([run]), _validation_table(run)))
    sections.append(_samples(run))
    if run.model is not None and text is not None:
        sections += text_sections(run.model, text, measures, threads)
    return [*sections, _settings(run)]


def _cards(run: ReportedRun, measures: TextMeasures | None) -> Markup:
    losses = [each.validation_loss for each in run.history.validations if each.validation_loss is not None]
    cards = []
    if measures is not None:
        error = "" if measures.error is None else f" ± {NORMAL_97 * measures.error:.3f}"
        cards.append((f"{measures.bits_per_byte:.3f}", f"bits per byte of held-out text{error}"))
    if losses:
        cards.append((f"{min(losses):.4f}", "best validation loss, nats per token"))
    cards.append((f"{parameter_count(run.record.model):,}", f"parameters, {run.record.model.architecture}"))
    times = [step.seconds for step in run.history.steps] + [each.seconds for each in run.history.validations]
    if times:
        cards.append((format_duration(max(times)), "training time"))
    return element("div", *(element("div", element("b", value), label) for value, label in cards), class_="cards")


def _findings(run: ReportedRun, measures: TextMeasures | None) -> Markup:
    items = [
        element("div", element("h3", each.title), paragraph(each.text), class_=f"finding {each.kind}")
        for each in diagnose(run, measures)
    ]
    items += [element("div", paragraph(problem), class_="finding missing") for problem in run.problems]
    return section("Diagnosis", element("div", *items, class_="findings"))


def _validation_table(run: ReportedRun) -> Markup | None:
    validations = run.history.validations
    if not validations:
        return None
    rows = []
    for index in sparse(validations, 12):
        each = validations[index]
        losses = [format_loss(loss) for loss in (each.train_loss, each.validation_loss, each.network_loss)]
        rows.append([f"{each.step:,}", f"{each.epoch:.2f}", format_duration(each.seconds), *losses])
    header = ["step", "epochs", "time", "training loss", "validation loss", "network alone"]
    return table(f"Validations: {len(rows)} of {len(validations):,}", header, rows)


def _samples(run: ReportedRun) -> Markup:
    title = "The same prompts, while it learns"
    kept = [each for each in run.history.validations if each.samples]
    if not kept:
        return section(title, paragraph("The history of this run has no samples."))
    shown = [kept[index] for index in sparse(kept, SAMPLED_VALIDATIONS)]
    parts = []
    for number in range(max(len(each.samples) for each in shown)):
        rows = []
        for each in shown:
            if number < len(each.samples):
                sample = each.samples[number]
                loss = "" if each.validation_loss is None else f"loss {each.validation_loss:.3f}"
                prompt = element("b", sample.prompt) if sample.prompt.strip() else None
                head = element("div", element("b", f"step {each.step:,}"), loss, class_="when")
                rows.append(element("div", head, element("div", prompt, sample.text, dir="auto", class_="text")))
        parts.append(element("div", *rows, class_="samples"))
    return section(title, *parts)


def _settings(run: ReportedRun) -> Markup:
    record, corpus = run.record, run.record.corpus
    more = f" and {len(corpus.files) - 1:,} more" if len(corpus.files) > 1 else ""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    workers = "" if record.workers == 1 else f", {record.workers} workers"
    rows: list[list[object]] = [
        ["run", quote(run.directory.resolve())],
        ["text", join([*map(quote, corpus.files[:1]), more])],
        ["characters", f"{corpus.characters:,}"],
        ["training tokens", f"{record.training_tokens:,}"],
        ["held-out tokens", f"{corpus.tokens - record.training_tokens:,}"],
        ["tokenizer", f"{record.tokenizer}, {record.model.vocabulary_size:,} tokens"],
        ["machine", f"{versions}; {record.training.precision}, {record.training.threads} threads{workers}"],
    ]
    rows += [[name.replace("_", " "), value] for name, value in flat_settings(run).items()]
    directory = shlex.quote(str(run.directory))
    commands = f"llm generate --model {directory}\nllm train --resume {directory}"
    return section(
        "Settings",
        element("pre", commands, tabindex="0"),
        table("All settings", ["setting", "value"], rows),
    )


def flat_settings(run: ReportedRun) -> dict[str, str]:
    """Every setting of a run as text."""
    hidden = {"ngrams", "replans", "vocabulary_size", "threads", "precision"}
    budget = run.record.budget_seconds
    values = {
        **vars(run.record.model),
        **vars(run.record.training),
        "budget": None if budget is None else format_duration(budget),
    }
    return {name: _format_setting(value) for name, value in values.items() if name not in hidden}


def _format_setting(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "no" if value is False else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_loss(loss: float | None) -> str:
    """A loss in nats per token."""
    return "–" if loss is None or math.isnan(loss) else f"{loss:.4f}"
