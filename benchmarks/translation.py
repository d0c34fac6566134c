"""Translation of short strings: pairs from gettext catalogues, a training run, and two baselines beside it.

usage: python benchmarks/translation.py LANGUAGE --output DIR [--locale DIR] [--budget 15m] [OPTION OF LLM TRAIN ...]
       python benchmarks/translation.py --packages

Fetches nothing: the catalogues are those of the Debian packages that `--packages` lists, installed, or unpacked with
`dpkg-deb -x` and named by `--locale ROOT/usr/share/locale`. A catalogue is a document: the held-out pairs are those of
whole catalogues, without any source string of the others.
"""

import argparse
import dataclasses
import gettext
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from measuring import report, run_json
from quickfox.evaluation.bootstrap import estimate
from quickfox.evaluation.completions import count_all_matches, measure

PACKAGES = (
    "util-linux-locales gimp-data libgtk-3-common vlc-l10n gnucash-common evolution-common "
    "evolution-data-server-common gnome-control-center-data inkscape kdenlive-data libglib2.0-data audacity-data "
    "coreutils binutils-common gcc-12-locales nautilus-data epiphany-browser-data darktable pidgin-data "
    "digikam-data kate5-data krita-data gramps"
)
MAX_SOURCE = 40
"""Characters of the longest source string."""
HELD_OUT_SHARE = 0.1
MAX_HELD_OUT = 1000
"""Held-out pairs that are measured, drawn at random."""
RANDOM_SEED = 1
_ACCELERATOR = re.compile(r"[_&](?=\w)")

Pairs = dict[str, str]


def read_catalogue(path: Path) -> Pairs:
    """The short source strings of one catalogue and their translations, without markers of keyboard shortcuts."""
    with path.open("rb") as file:
        messages: dict[str | tuple[str, int], str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    pairs = {}
    for key, translation in messages.items():
        if isinstance(key, tuple) and key[1] != 0:  # only the singular of a plural message
            continue
        message = key[0] if isinstance(key, tuple) else key
        source = _ACCELERATOR.sub("", message.rpartition("\x04")[2])  # without the message's context
        target = _ACCELERATOR.sub("", translation)
        if 0 < len(source) <= MAX_SOURCE and target.strip() and "\n" not in source + target:
            pairs[source] = target
    return pairs


def split_by_catalogue(catalogues: dict[str, Pairs]) -> tuple[Pairs, Pairs, list[str]]:
    """The training pairs, the held-out pairs, and the names of the held-out catalogues; no source is in both."""
    total = len({source for pairs in catalogues.values() for source in pairs})
    order = sorted(catalogues)
    random.Random(RANDOM_SEED).shuffle(order)
    held_names: list[str] = []
    held_out: Pairs = {}
    for name in order:
        if len(held_out) >= HELD_OUT_SHARE * total:
            break
        held_names.append(name)
        held_out = catalogues[name] | held_out
    training: Pairs = {}
    for name in sorted(set(catalogues) - set(held_names)):
        training = catalogues[name] | training
    return training, {source: held_out[source] for source in held_out if source not in training}, held_names


def nearest_translations(training: Pairs, sources: list[str]) -> list[str]:
    """For each source, the translation of the training source with the most similar character trigrams.

    The similarity is the cosine of the counts of trigrams, weighted by their inverse document frequency.
    """
    known = list(training)
    trigrams: dict[str, int] = {}
    rows = [_trigram_counts(source, trigrams, is_new_allowed=True) for source in known]
    frequency = np.bincount(np.concatenate([np.array(list(row), np.int64) for row in rows]), minlength=len(trigrams))
    weights = np.log(len(known) / frequency)
    postings: list[list[tuple[int, float]]] = [[] for _ in trigrams]  # trigram -> (row, weight in it)
    for index, row in enumerate(rows):
        norm = float(np.sqrt(sum((count * weights[trigram]) ** 2 for trigram, count in row.items()))) or 1.0
        for trigram, count in row.items():
            postings[trigram].append((index, count * float(weights[trigram]) / norm))
    arrays = [np.array(posting).reshape(-1, 2) for posting in postings]
    nearest = []
    for source in sources:
        similarity = np.zeros(len(known))
        for trigram, count in _trigram_counts(source, trigrams, is_new_allowed=False).items():
            similarity[arrays[trigram][:, 0].astype(np.int64)] += count * weights[trigram] * arrays[trigram][:, 1]
        nearest.append(training[known[int(similarity.argmax())]])
    return nearest


def _trigram_counts(text: str, trigrams: dict[str, int], *, is_new_allowed: bool) -> Counter[int]:
    """Trigram -> count in a text, with its ends marked; new trigrams are added to `trigrams` or ignored."""
    marked = f"  {text}  "
    found = [marked[start : start + 3] for start in range(len(marked) - 2)]
    if is_new_allowed:
        return Counter(trigrams.setdefault(trigram, len(trigrams)) for trigram in found)
    return Counter(trigrams[trigram] for trigram in found if trigram in trigrams)


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> None:
    lines = (
        json.dumps({"prompt": f"{source}\n", "completion": target}, ensure_ascii=False) for source, target in pairs
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("language", nargs="?", help="such as de or fr")
    parser.add_argument("--packages", action="store_true", help="list the Debian packages to install, and end")
    parser.add_argument("--locale", type=Path, default=Path("/usr/share/locale"))
    parser.add_argument("--output", type=Path, help="directory for the pairs and the run")
    parser.add_argument("--budget", default="15m")
    arguments, options = parser.parse_known_args()  # further options are those of llm train
    if arguments.packages:
        sys.exit(f"apt-get install {PACKAGES}")
    if arguments.language is None or arguments.output is None:
        parser.error("LANGUAGE and --output are required")
    paths = sorted((arguments.locale / arguments.language / "LC_MESSAGES").glob("*.mo"))
    catalogues = {path.stem: pairs for path in paths if (pairs := read_catalogue(path))}
    if not catalogues:
        sys.exit(f"{arguments.locale}: no catalogues of {arguments.language}; install some, for example: {PACKAGES}")
    training, held_out, names = split_by_catalogue(catalogues)
    generator = random.Random(RANDOM_SEED)
    training_pairs = generator.sample(sorted(training.items()), len(training))
    held_pairs = generator.sample(sorted(held_out.items()), min(MAX_HELD_OUT, len(held_out)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_pairs(arguments.output / "training.jsonl", training_pairs)
    write_pairs(arguments.output / "held_out.jsonl", held_pairs)
    report(
        catalogues=len(catalogues),
        training=len(training),
        held_out=len(held_out),
        measured=len(held_pairs),
        held_out_catalogues=names,
    )

    sources, references = (list(part) for part in zip(*held_pairs, strict=True))
    for name, hypotheses in (("copy", sources), ("nearest", nearest_translations(training, sources))):
        estimates = estimate(count_all_matches(zip(hypotheses, references, strict=True)), measure)
        report(name=name, **{measured: dataclasses.asdict(value) for measured, value in estimates.items()})
    run = arguments.output / "run"
    files = {name: str(arguments.output / f"{name}.jsonl") for name in ("training", "held_out")}
    options += ["--budget", arguments.budget, "--random-seed", str(RANDOM_SEED), "--output", str(run), "--json"]
    report(name="train", **run_json(["llm", "train", files["training"], *options]))
    report(name="run", **run_json(["llm", "evaluate", files["held_out"], "--model", str(run), "--json"]))


if __name__ == "__main__":
    main()
