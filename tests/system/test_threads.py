"""map_ahead: results in order, a bounded number of items in memory, exceptions passed on."""

import threading
from collections.abc import Iterator

import pytest

from quickfox.system.threads import map_ahead


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_results_are_in_the_order_of_the_items(threads: int, count: int) -> None:
    assert list(map_ahead(lambda item: item * 2, range(count), threads)) == [2 * item for item in range(count)]


def test_with_one_thread_the_calls_are_in_order() -> None:
    calls: list[int] = []
    list(map_ahead(calls.append, range(50), threads=1))
    assert calls == list(range(50))


def test_at_most_one_item_more_than_threads_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    results = map_ahead(lambda item: item, items(), threads=2)
    next(results)
    assert len(made) == 3


def test_the_function_runs_on_another_thread() -> None:
    results = map_ahead(lambda _: threading.current_thread(), [0], threads=1)
    assert next(results) is not threading.current_thread()


def test_an_exception_of_the_function_is_raised() -> None:
    def fail(item: int) -> None:
        raise OSError(f"item {item}")

    with pytest.raises(OSError, match="item 0"):
        list(map_ahead(fail, range(10), threads=2))
