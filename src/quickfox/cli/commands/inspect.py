"""`llm inspect`: what happens inside a network while it reads a text."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickfox.cli.formatting import color_by_activation, format_table
from quickfox.cli.options import JsonOption, ModelOption, load_selected_model, option
from quickfox.cli.streams import notify, write_output
from quickfox.config.corpus import CorpusOptions
from quickfox.config.media import KIND_NAMES
from quickfox.errors import DataError, NoInputError, UsageError

if TYPE_CHECKING:
    from quickfox.model import Model
    from quickfox.models.language_model import TraceableNetwork
    from quickfox.text.corpus import Corpus
    from quickfox.tokenizers.base import TokenIds

EXAMPLES = """\b
Examples:
  llm inspect corpus.txt --find quotes
  llm inspect chapter.txt --unit 0.163 | less -R
  llm inspect chapter.txt --unit 0.163 -o page.html
  llm inspect corpus.txt --find '[0-9]+' --top 3
  llm inspect corpus.txt --gates
  echo "A fox. The fox" | llm inspect - --attention"""

TOP_UNITS, TOP_TOKENS = 10, 3

FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A text, or - for standard input. --find and --gates read only the held-out part of the text of the run.",
        show_default=False,
    ),
]
UnitOption = Annotated[
    str | None,
    option("--unit", "Color the text by the activation of a unit, both numbers from 0.", metavar="LAYER.UNIT"),
]
FindOption = Annotated[
    str | None,
    option(
        "--find",
        "List the units that follow a feature best: quotes, line-length (position in the line), brackets, word-start, "
        "uppercase, digits, or the matches of a regular expression.",
        metavar="FEATURE|REGEX",
    ),
]
AttentionOption = Annotated[
    bool, option("--attention", "List the tokens that each of the last tokens attends to, by layer.")
]
GatesOption = Annotated[bool, option("--gates", "Show how often the gates of lstm and gru layers are open.")]
TopOption = Annotated[
    int | None,
    option("--top", "Number of units, or of tokens attended to. Default: 10, 3.", metavar="N", min=1),
]
OutputOption = Annotated[
    Path | None,
    option("--output -o", "With --unit: write a page instead. Default: colors of the terminal.", metavar="FILE"),
]


def run(
    file: FileArgument,
    model: ModelOption = None,
    unit: UnitOption = None,
    find: FindOption = None,
    attention: AttentionOption = False,
    gates: GatesOption = False,
    top: TopOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what happens inside a network while it reads a text. See docs/inspect.md."""
    modes = {"unit": unit is not None, "find": find is not None, "attention": attention, "gates": gates}
    given = [name for name, is_given in modes.items() if is_given]
    if len(given) != 1:
        names = " and ".join(f"--{name}" for name in given) or "none of them"
        raise UsageError(f"give one of unit, find, attention and gates, not {names}", *modes)
    if output is not None and (unit is None or as_json):
        raise UsageError("output is for unit, without json", "output", "unit", "json")
    from quickfox.evaluation.activations import network_of

    loaded = load_selected_model(model)
    network = network_of(loaded.bundle)
    if unit is not None:
        _show_unit(loaded, network, _read(file, loaded), unit, output, as_json=as_json)
    elif attention:
        _show_attention(loaded, network, _read(file, loaded), top or TOP_TOKENS, as_json=as_json)
    elif find is not None:
        _show_correlations(loaded, network, _read_held_out(file, loaded), find, top or TOP_UNITS, as_json=as_json)
    else:
        _show_gates(network, _read_held_out(file, loaded), as_json=as_json)


def _read(file: str, model: "Model") -> "TokenIds":
    """The tokens of a text, of which there is at least one."""
    from quickfox.data.dataset import collect_tokens
    from quickfox.data.encoding import encode_corpus_chunks
    from quickfox.generation.prompt import describe_unknown_characters

    tokenizer = model.bundle.tokenizer
    unknown: Counter[str] = Counter()
    chunks = encode_corpus_chunks(_open_text(file), tokenizer, unknown)
    ids = collect_tokens((chunk.ids for chunk in chunks), tokenizer.token_dtype)
    if unknown:
        notify(f"warning: {describe_unknown_characters(unknown, tokenizer.unknown_token)}")
    if not len(ids):
        raise NoInputError(f"{file}: no text that the model knows")
    return ids


def _open_text(file: str) -> "Corpus":
    """The corpus of a file, which has no signals."""
    from quickfox.text.corpus import open_corpus

    corpus = open_corpus([file], notify, options=CorpusOptions())
    if corpus.media_kind is not None:
        raise DataError(f"{file}: names {KIND_NAMES[corpus.media_kind]}, and `llm inspect` reads text only")
    return corpus


def _read_held_out(file: str, model: "Model") -> "TokenIds":
    """The tokens of a text; if the model was trained on it, those of the part that was held out."""
    from quickfox.report.loading import MAX_HELD_OUT_TOKENS, find_held_out
    from quickfox.text.sources import STANDARD_INPUT
    from quickfox.training.engine.events import RunContext

    if file != STANDARD_INPUT:
        corpus = _open_text(file)
        held_out = find_held_out(model.path, corpus, RunContext(notify=notify, started=time.monotonic()))
        if held_out is not None and len(held_out):
            notify(f"{file} is the text of the run: its held-out text is read, {len(held_out):,} tokens")
            return held_out
        if held_out is not None:
            notify(f"warning: the model was trained on all of {file}, so that this says little about other texts")
    ids = _read(file, model)
    if len(ids) > MAX_HELD_OUT_TOKENS:
        notify(f"{file}: the first {MAX_HELD_OUT_TOKENS:,} of {len(ids):,} tokens are read")
    return ids[:MAX_HELD_OUT_TOKENS]


def _show_unit(
    model: "Model", network: "TraceableNetwork", ids: "TokenIds", unit: str, output: Path | None, *, as_json: bool
) -> None:
    from quickfox.evaluation.activations import LEVELS, activation_levels, align, unit_activations

    activations = unit_activations(network, ids, unit)
    if as_json:
        names = _token_texts(model, ids)
        write_output(_format_json({"unit": unit, "tokens": names, "activations": _round(activations)}))
        return
    alignment = align(model.bundle.tokenizer, ids)
    of_characters = activations[alignment.tokens]
    if output is None:
        largest = float(abs(of_characters).max(initial=0.0))
        scale = f"blue {-largest:.2f}, orange {largest:.2f}, in {LEVELS} steps each from 0"
        notify(f"activation of unit {unit} after each character: {scale}")
        colored = color_by_activation(alignment.text, activation_levels(of_characters).tolist())
        write_output(colored if colored.endswith("\n") else f"{colored}\n")
        return
    from quickfox.files.atomic import write_file
    from quickfox.report.activations import render_activations

    write_file(
        output,
        render_activations(unit, str(model.path), alignment.text, of_characters).encode(errors="backslashreplace"),
    )
    notify(f"wrote {output}")


def _show_correlations(
    model: "Model", network: "TraceableNetwork", ids: "TokenIds", feature: str, top: int, *, as_json: bool
) -> None:
    from quickfox.evaluation.activations import find_units

    found = find_units(network, model.bundle.tokenizer, ids, feature, top)
    if as_json:
        units = [
            {"unit": each.unit, "correlation": each.correlation.value, "interval": each.correlation.interval}
            for each in found
        ]
        write_output(_format_json({"feature": feature, "tokens": len(ids), "units": units}))
        return
    rows = [("unit", "correlation", "95 % interval")]
    for each in found:
        r = each.correlation
        rows.append((each.unit, f"{r.value:+.3f}", f"{r.low:+.3f} to {r.high:+.3f}"))
    write_output(format_table(rows))


def _show_gates(network: "TraceableNetwork", ids: "TokenIds", *, as_json: bool) -> None:
    from quickfox.evaluation.activations import CLOSED, OPEN, summarize_gates

    found = summarize_gates(network, ids)
    if as_json:
        gates = [
            {"layer": each.layer, "gate": each.gate}
            | {name: _round(getattr(each, name)) for name in ("mean", "is_open", "is_closed")}
            for each in found
        ]
        write_output(_format_json({"tokens": len(ids), "gates": gates}))
        return
    rows: list[tuple[str, ...]] = [
        ("layer", "gate", "mean", f"open (> {OPEN:g})", f"closed (< {CLOSED:g})", "most open unit", "most closed unit")
    ]
    for each in found:
        extremes = [f"{int(share.argmax())}: {share.max():.0%} of tokens" for share in (each.is_open, each.is_closed)]
        shares = [f"{share.mean():.1%}" for share in (each.is_open, each.is_closed)]
        rows.append((each.layer, each.gate, f"{each.mean.mean():.2f}", *shares, *extremes))
    write_output(format_table(rows))


def _show_attention(model: "Model", network: "TraceableNetwork", ids: "TokenIds", top: int, *, as_json: bool) -> None:
    from quickfox.evaluation.activations import attention_weights
    from quickfox.report.text_sections import token_name

    if network.context is not None and len(ids) > network.context:
        notify(f"the last {network.context:,} of {len(ids):,} tokens are read, the context of the model")
        ids = ids[-network.context :]
    layers = attention_weights(network, ids)
    if as_json:
        weights = [{"layer": name, "weights": _round(each)} for name, each in layers]
        write_output(_format_json({"tokens": _token_texts(model, ids), "layers": weights}))
        return
    names = [token_name(model, token_id) for token_id in ids.tolist()]
    rows: list[tuple[str, ...]] = [("position", "token", *(name for name, _ in layers))]
    for position, name in enumerate(names):
        cells = []
        for _, heads in layers:
            mean = heads[:, position, : position + 1].mean(axis=0)
            best = (-mean).argsort(kind="stable")[:top].tolist()
            cells.append("  ".join(f"{names[key]} {key - position:+d} {mean[key]:.2f}" for key in best))
        rows.append((str(position), name, *cells))
    write_output(format_table(rows))


def _token_texts(model: "Model", ids: "TokenIds") -> list[str]:
    tokenizer = model.bundle.tokenizer
    return [tokenizer.token_bytes(token_id).decode(errors="replace") for token_id in ids.tolist()]


def _round(values: Any) -> Any:
    """An array as lists of numbers with the digits of float32."""
    return values.astype(float).round(7).tolist()


def _format_json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
