"""A token file behaves like an array: slices, parts and batches are equal."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickfox.data.batching import StreamBatches, iter_validation_windows
from quickfox.data.dataset import remove_tokens
from quickfox.data.token_file import ShardWriter, TokenFile, shard_path, shard_paths
from quickfox.errors import DataError, StorageError

IDS = np.random.default_rng(0).integers(0, 1000, 501).astype("<u2")


@pytest.fixture(params=[2, 64, 1002, 2**20])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> TokenFile:
    with ShardWriter(tmp_path / "ids", request.param) as writer:
        for start in range(0, len(IDS), 37):
            writer.write(IDS[start : start + 37].tobytes())
    return TokenFile(tmp_path / "ids", np.uint16)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.integers(0, 501), st.integers(0, 501), st.integers(0, 600), st.integers(0, 600))
def test_slices_of_parts_equal_those_of_an_array(file: TokenFile, first: int, last: int, start: int, stop: int) -> None:
    first, last = sorted((first, last))
    part = file.part(first, last)
    assert len(part) == last - first
    assert np.array_equal(part[start:stop], IDS[first:last][start:stop])


def test_batches_and_windows_equal_those_of_an_array(file: TokenFile) -> None:
    for step in (0, 7, 1000):
        for ours, arrays in zip(
            StreamBatches(file, 3, 20, 1).batch(step), StreamBatches(IDS, 3, 20, 1).batch(step), strict=True
        ):
            assert np.array_equal(ours, arrays)
    pairs = zip(iter_validation_windows(file, 4, 8, 16), iter_validation_windows(IDS, 4, 8, 16), strict=True)
    assert all(np.array_equal(ours.x, arrays.x) and np.array_equal(ours.y, arrays.y) for ours, arrays in pairs)


def test_the_rows_of_all_workers_are_the_whole_batch() -> None:
    whole = StreamBatches(IDS, 6, 20, 1).batch(5)
    for workers in (2, 3):
        size = 6 // workers
        shards = [StreamBatches(IDS, 6, 20, 1, rows=slice(w * size, (w + 1) * size)) for w in range(workers)]
        assert all(shard.steps_per_epoch == StreamBatches(IDS, 6, 20, 1).steps_per_epoch for shard in shards)
        for array, rows in enumerate(whole):  # the inputs, then the targets
            assert np.array_equal(np.concatenate([shard.batch(5)[array] for shard in shards]), rows)


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(IDS.tobytes())
    file = TokenFile(tmp_path / "ids", np.uint16)
    (tmp_path / "ids").write_bytes(IDS[:100].tobytes())
    assert np.array_equal(file[90:100], IDS[90:100])
    with pytest.raises(StorageError, match="truncated"):
        file[90:110]


@pytest.mark.parametrize("sizes", [(8, 10, 4), (10, 8, 4), (10, 10, 12), (0, 0, 2), (0, 10)])
def test_shards_of_wrong_sizes_are_refused(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    for number, size in enumerate(sizes):
        shard_path(tmp_path / "ids", number).write_bytes(bytes(size))
    with pytest.raises(DataError, match="ids: a shard is damaged"):
        TokenFile(tmp_path / "ids", np.uint16)


def test_full_shards_are_closed(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "ids", 10) as writer:
        writer.write(bytes(25))
        assert [path.stat().st_size for path in sorted(tmp_path.iterdir())].count(10) == 2
    assert all(path.stat().st_size in (10, 5) for path in tmp_path.iterdir())


def test_all_shards_exist_at_the_end_or_none_after_an_exception(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "ids", 10) as writer:
        writer.write(bytes(35))
        assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert [path.stat().st_size for path in shard_paths(tmp_path / "ids")] == [10, 10, 10, 5]
    remove_tokens(tmp_path / "ids")
    assert not list(tmp_path.iterdir())

    def write_and_fail() -> None:
        with ShardWriter(tmp_path / "ids", 10) as writer:
            writer.write(bytes(35))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert not list(tmp_path.iterdir())
