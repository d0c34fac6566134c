"""The sections of the report of one run that examine its model on text."""

from collections.abc import Sequence

import numpy as np

from quickfox.evaluation.predictions import calibration_error
from quickfox.model import Model
from quickfox.report.charts import Series, bar, line_chart, scatter
from quickfox.report.loading import RunText
from quickfox.report.markup import Markup, element, join, paragraph, quote, section, table
from quickfox.report.measures import (
    Group,
    Passage,
    TextMeasures,
    baselines,
    by_class,
    by_line_position,
    by_word_position,
    character_class,
    copies,
    map_embedding,
    passages,
)

COPY_SAMPLES, COPY_SAMPLE_LENGTH = 4, 400
HEAT_LEVELS = 7
CALIBRATED = 0.03
"""Calibration error below which a model is said to be well calibrated."""

_NAMES = {"\n": "⏎", " ": "␣", "\t": "⇥"}
_COLORS = {"letter": 0, "capital letter": 1, "digit": 2, "punctuation": 3, "space": 4, "line end": 4}


def text_sections(model: Model, text: RunText, measures: TextMeasures | None, threads: int) -> list[Markup]:
    """The sections that need the text of a run; those of the held-out text need its measures too."""
    sections = []
    if measures is not None:
        found = baselines(model, text, measures, threads)
        sections = [_baselines(found, measures), _passages(measures), _groups(measures), _calibration(measures)]
    return [*sections, _embedding(model, text), _copies(model, text)]


def _baselines(found: dict[str, float], measures: TextMeasures) -> Markup:
    names = {
        "uniform": "uniform: every token equally probable",
        "order-0": "order 0: the frequency of each token",
        "order-5": "order 5: n-grams with a context of five tokens",
        "gzip": "gzip -9 of the held-out text alone",
        "xz": "xz -9 of the held-out text alone",
    }
    rows: list[tuple[object, float]] = [(element("b", "this model"), measures.bits_per_byte)]
    rows += [(names[name], value) for name, value in found.items()]
    rows.sort(key=lambda row: row[1])
    highest = max(value for _, value in rows)
    body = [[name, f"{value:.3f}", bar(value / highest)] for name, value in rows]
    return section(
        "Against simple models",
        table("Bits per byte of the held-out text; lower is better", ["model", "bits", "relative"], body),
    )


def _passages(measures: TextMeasures) -> Markup:
    easiest, hardest = passages(measures)
    scale = [
        element("span", label, class_=f"h{level}")
        for level, label in enumerate(("< 1", "1", "2", "3", "4", "5", "6", "7+"))
    ]
    legend = paragraph("Surprisal of each character in bits: ", *scale, class_="scale")
    parts = [
        element("div", element("h3", title), *map(heat, shown))
        for title, shown in (("Easiest", easiest), ("Hardest", hardest))
    ]
    return section("Easiest and hardest passages", legend, element("div", *parts, class_="columns"))


def heat(passage: Passage) -> Markup:
    """A passage whose characters have a background by their surprisal."""
    levels = np.minimum(passage.bits.astype(np.int64), HEAT_LEVELS).tolist()
    runs: list[Markup] = []
    start = 0
    for index in range(1, len(levels) + 1):
        if index == len(levels) or levels[index] != levels[start]:
            piece = passage.text[start:index]
            runs.append(element("span", piece, class_=f"h{levels[start]}") if levels[start] else join([piece]))
            start = index
    note = element("small", f"{passage.mean_bits:.2f} bits per character")
    return element("div", element("p", *runs, dir="auto", class_="text"), note, class_="passage")


def _groups(measures: TextMeasures) -> Markup:
    tables = [
        ("By class of character", "class", by_class(measures)),
        ("By position in the word", "position", by_word_position(measures)),
        ("By position in the line", "position", by_line_position(measures)),
    ]
    parts = [_group_table(caption, name, groups) for caption, name, groups in tables if groups]
    return section("Which characters are hard", element("div", *parts, class_="columns three"))


def _group_table(caption: str, name: str, groups: Sequence[Group]) -> Markup:
    highest = max(group.bits for group in groups) or 1.0
    rows = [[each.label, f"{each.bits:.2f}", bar(each.bits / highest), f"{each.characters:,}"] for each in groups]
    return table(caption, [name, "bits", "relative", "characters"], rows)


def _calibration(measures: TextMeasures) -> Markup:
    bins = measures.calibration
    points = [(each.confidence, each.accuracy) for each in bins]
    chart = line_chart(
        "Share of tokens predicted rightly against the probability that the model gave them",
        ("predicted probability", "observed share"),
        [Series("model", points)],
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        with_diagonal=True,
    )
    error = calibration_error(bins)
    above = sum(each.count * (each.confidence - each.accuracy) for each in bins) > 0
    tendency = "too certain" if above else "too cautious"
    judgment = "well calibrated" if error < CALIBRATED else f"{tendency} on average"
    text = (
        f"Of the tokens that the model predicts with a probability of 70 %, 70 % should be right. Here the mean "
        f"distance from that is {100 * error:.1f} percentage points: the model is {judgment}."
    )
    rows = [[f"{each.confidence:.3f}", f"{each.accuracy:.3f}", f"{each.count:,}"] for each in bins]
    numbers = table("Tokens by the probability of the most probable token", ["predicted", "observed", "tokens"], rows)
    return section("Calibration", paragraph(text), element("div", chart, numbers, class_="columns"))


def _embedding(model: Model, text: RunText) -> Markup:
    title = "Embedding"
    found = map_embedding(model, text.training_ids)
    if found is None:
        return section(title, paragraph("The model has no network, or too few tokens: there is no embedding to show."))
    names = [token_name(model, token) for token in found.tokens]
    by_id = dict(zip(found.tokens, names, strict=True))
    raw = [model.bundle.tokenizer.token_bytes(token).decode(errors="replace") for token in found.tokens]
    colors = [_COLORS.get(character_class(each[:1]), 5) for each in raw]
    points = [(x, y, name, color) for (x, y), name, color in zip(found.positions.tolist(), names, colors, strict=True)]
    chart = scatter("Map of the most frequent tokens", ("first component", "second component"), points)
    rows = []
    for token, nearest in zip(found.tokens, found.neighbors, strict=False):
        cells = [join([quote(by_id[other], class_="token"), f" {similarity:.2f} "]) for other, similarity in nearest]
        rows.append([quote(by_id[token], class_="token"), join(cells)])
    note = (
        f"The first two principal components of the embeddings of the {len(names)} most frequent tokens, which have "
        f"{100 * found.explained:.0f} % of their variance; and the nearest tokens by cosine similarity."
    )
    neighbors = table("Nearest tokens", ["token", "nearest"], rows)
    return section(title, paragraph(note), element("div", chart, neighbors, class_="columns"))


def token_name(model: Model, token: int) -> str:
    """A token as visible text."""
    data = model.bundle.tokenizer.token_bytes(token)
    text = data.decode(errors="replace")
    if "\ufffd" in text:
        return data.hex(" ")
    return "".join(_NAMES.get(character, character) for character in text)


def _copies(model: Model, text: RunText) -> Markup:
    samples = model.generate("", num_samples=COPY_SAMPLES, length=COPY_SAMPLE_LENGTH, random_seed=0)
    found = copies(samples, model.bundle.tokenizer, text)
    items = []
    for sample, copy in sorted(zip(samples, found, strict=True), key=lambda pair: -len(pair[1].text)):
        end = copy.sample_start + len(copy.text)
        marked = [sample[: copy.sample_start], element("mark", copy.text), sample[end:]]
        note = element("small", f"longest copy: {len(copy.text):,} characters")
        items.append(element("div", element("p", *marked, dir="auto", class_="text"), note, class_="passage"))
    longest = max(len(copy.text) for copy in found)
    part = "the end of the training text" if text.is_cut else "the training text"
    explanation = (
        f"{COPY_SAMPLES} samples of {COPY_SAMPLE_LENGTH} tokens at the model's temperature, with the longest part of "
        f"each that is also in {part} marked. The longest has {longest:,} characters."
    )
    return section("Copies of the corpus", paragraph(explanation), element("div", *items, class_="columns"))
