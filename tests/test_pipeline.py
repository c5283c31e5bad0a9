from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from dupmae.engine.pipeline import read_ahead

THREAD = "dupmae-read-ahead"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_items_come_in_order_with_what_was_made_of_them_in_another_thread() -> None:
    found = list(read_ahead(range(50), lambda item: (item**2, threading.current_thread().name)))
    assert found == [(item, (item**2, THREAD)) for item in range(50)]
    assert THREAD not in threads()


def test_no_more_than_two_items_are_read_ahead() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            read.append(item)
            yield item

    for item, _ in read_ahead(items(), str):
        assert len(read) <= item + 1 + 2
    assert len(read) == 20


def test_the_next_item_is_prepared_before_the_one_yielded_is_done_with() -> None:
    prepared = [threading.Event() for _ in range(5)]
    for item, _ in read_ahead(range(5), lambda item: prepared[item].set()):
        assert item == 4 or prepared[item + 1].wait(timeout=30)


@pytest.mark.parametrize("where", ["items", "prepare"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_is_raised_in_the_thread_is_raised_here_after_the_items_before(
    where: str, error: type[BaseException]
) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        if where == "items":
            raise error("3")
        yield 3

    def prepare(item: int) -> int:
        if item == 3:
            raise error("3")
        return item

    found = []

    def take() -> None:
        for item, _ in read_ahead(items(), prepare):
            found.append(item)

    with pytest.raises(error, match="3"):
        take()
    assert found == [0, 1, 2]


def test_stopping_early_ends_the_thread() -> None:
    with closing(read_ahead(iter(int, 1), str)) as ahead:  # without end
        next(ahead)
        assert THREAD in threads()
    assert THREAD not in threads()
