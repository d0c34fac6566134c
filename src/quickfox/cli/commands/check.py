"""`llm check`: faults of a corpus, what it is like, and cleaned copies."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from quickfox.cli.formatting import format_table
from quickfox.cli.options import CorpusArgument, JsonOption, option, with_corpus_options
from quickfox.cli.streams import escape_unprintable, notify, write_output
from quickfox.config.corpus import CorpusOptions
from quickfox.diagnosis.findings import KINDS
from quickfox.errors import DataError, UsageError
from quickfox.system.threads import pin_numpy_threads

if TYPE_CHECKING:
    from quickfox.diagnosis.diagnose import Diagnosis
    from quickfox.diagnosis.repair import Change

EXAMPLES = """\b
Examples:
  llm check corpus.txt
  llm check training.jsonl --against held_out.jsonl --fail-on overlap
  llm check books/ --fix cleaned/ && llm train cleaned/"""

ANY = "any"


@with_corpus_options
def run(
    corpus: CorpusArgument,
    *,
    corpus_options: CorpusOptions,
    against: Annotated[
        list[str] | None,
        option("--against", "Held-out text, which should not be in the corpus; repeatable.", metavar="CORPUS"),
    ] = None,
    fix: Annotated[
        Path | None, option("--fix", "Write cleaned copies of the files to the new directory DIR.", metavar="DIR")
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        option(
            "--fail-on",
            f"Exit with status 65 if there is such a fault; repeatable: {ANY}, {', '.join(KINDS)}.",
            metavar="KIND",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for faults in a corpus: damaged characters, duplicates, boilerplate, overlap with held-out text."""
    unknown = [kind for kind in fail_on or () if kind not in (ANY, *KINDS)]
    if unknown:
        raise UsageError(f"fail_on {unknown[0]!r} is not a kind of fault: {ANY}, {', '.join(KINDS)}", "fail_on")
    pin_numpy_threads(1)
    from quickfox.diagnosis.diagnose import diagnose
    from quickfox.diagnosis.repair import repair
    from quickfox.text.corpus import open_corpus

    opened = open_corpus(
        corpus, notify, options=corpus_options, is_recorded=True
    )  # equal files are faults, and not left out
    held_out = open_corpus(against, notify, options=corpus_options) if against else None
    diagnosis = diagnose(opened, held_out)
    changes = repair(opened, fix) if fix is not None else None
    if as_json:
        values = dataclasses.asdict(diagnosis)
        if changes is not None:
            values["changes"] = [dataclasses.asdict(change) for change in changes]
        write_output(json.dumps(values, ensure_ascii=False) + "\n")
    else:
        write_output("".join(_format(diagnosis)))
        write_output("".join(map(_format_change, changes or ())))
    found = [finding for finding in diagnosis.findings if ANY in (fail_on or ()) or finding.kind in (fail_on or ())]
    if found:
        raise DataError(f"{found[0].where}: {found[0].kind}: {found[0].message}")


def _format(diagnosis: "Diagnosis") -> list[str]:
    scripts = list(diagnosis.scripts.items())
    sample = diagnosis.sample
    rows = [
        ("documents", f"{diagnosis.documents:,}"),
        ("characters", f"{diagnosis.characters:,}, {diagnosis.distinct_characters:,} distinct"),
        (
            "document lengths",
            f"{diagnosis.shortest_document:,} to {diagnosis.longest_document:,}, median {diagnosis.median_document:,}",
        ),
        ("scripts", ", ".join(f"{name} {share:.1%}" for name, share in scripts[:5]) or "no letters"),
        ("entropy", f"{diagnosis.entropy_order_0:.3f} bits per character, order 5: {sample['entropy_order_5']:.3f}"),
        (
            "compression",
            f"{sample['gzip_bits_per_character']:.3f} bits per character by gzip, "
            f"{sample['xz_bits_per_character']:.3f} by xz",
        ),
        *(
            [("overlap", f"{diagnosis.overlap:.1%} of the held-out text is in the corpus")]
            if diagnosis.overlap is not None
            else []
        ),
    ]
    lines = [format_table(rows)]
    if diagnosis.rare_characters:
        shown = (
            f"{escape_unprintable(rare.character)!r} (U+{ord(rare.character):04X}, {rare.where})"
            for rare in diagnosis.rare_characters[:5]
        )
        lines.append(f"rare characters: {', '.join(shown)}\n")
    lines += [f"{found.kind}: {found.count:,}, {found.where}: {_line(found.message)}\n" for found in diagnosis.findings]
    lines += [f"advice: {line}\n" for line in diagnosis.advice]
    return lines if diagnosis.findings else [*lines, "no faults found\n"]


def _format_change(change: "Change") -> str:
    return f"fixed: {change.where}: {change.kind}: {change.count:,}\n"


def _line(text: str) -> str:
    return escape_unprintable(text)
