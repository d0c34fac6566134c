"""How the text of a run is read is recorded: `--resume` and `--config` read tables, archives and separators again."""

import zipfile
from pathlib import Path

import pytest
from run_driver import CONTEXT, at_step, resume, start

from quickfox.checkpoints.run_directory import TOKENS_FILE
from quickfox.config.corpus import CorpusOptions
from quickfox.config.training import TrainingRequest
from quickfox.data.dataset import remove_tokens
from quickfox.text.corpus import Corpus, ignore_notice, open_corpus
from quickfox.training.engine.events import RunFinished, RunInterrupted, RunRequest
from quickfox.training.run.record import read_record
from quickfox.training.run.transfer import resolve_corpus_options

pytestmark = pytest.mark.usefixtures("fake_training")

LINE = "the quick brown fox jumps over the lazy dog"


def open_kind(kind: str, folder: Path) -> Corpus:
    """A corpus of which the options or the archive must be known to read the same text again."""
    if kind == "table":
        rows = "".join(f'{number};"{LINE}\nagain"\n' for number in range(60))
        (folder / "reviews.csv").write_text("id;review\n" + rows, encoding="utf-16")
        options = CorpusOptions(column="review", encoding="utf-16")
        return open_corpus([str(folder / "reviews.csv")], ignore_notice, options=options)
    with zipfile.ZipFile(folder / "books.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.rst", f"{LINE}\n" * 20 + LINE)
    options = CorpusOptions(separator="\n\n\n", include=("*.rst",))
    return open_corpus([str(folder / "books.zip")], ignore_notice, options=options)


@pytest.mark.parametrize("kind", ["table", "archive"])
def test_the_text_is_read_again_in_the_same_way(tmp_path: Path, kind: str) -> None:
    corpus = open_kind(kind, tmp_path)
    assert isinstance(start(tmp_path, corpus=corpus, stop=at_step(10))[-1], RunInterrupted)
    run = tmp_path / "run"
    remove_tokens(run / TOKENS_FILE)
    assert isinstance(resume(tmp_path)[-1], RunFinished)  # whose digests of text and tokens would differ

    options = resolve_corpus_options(RunRequest(training=TrainingRequest(), config_from=run))
    assert options == corpus.options
    again = open_corpus(corpus.names, CONTEXT.notify, options=options, is_recorded=True)
    start(tmp_path / "again", corpus=again, settings={}, config_from=run)
    first, second = (read_record(each).corpus for each in (run, tmp_path / "again" / "run"))
    assert (second.sha256, second.tokens_sha256) == (first.sha256, first.tokens_sha256)
