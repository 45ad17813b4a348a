"""What is made ahead comes as it was made: order, number, errors, and no thread left behind."""

import threading
from itertools import count, islice

import pytest

from avsync_cli.prefetch import work_ahead


def test_order_and_number_are_kept():
    assert list(work_ahead(range(100), most=3)) == list(range(100))
    assert list(work_ahead([], most=3)) == []
    assert list(work_ahead([None, None], most=1)) == [None, None]


def test_no_more_is_made_than_asked_for():
    made = []
    things = work_ahead((made.append(number) or number for number in count()), most=4)
    assert list(islice(things, 10)) == list(range(10))
    things.close()
    assert len(made) <= 10 + 4 + 1


def test_an_error_comes_after_what_was_made_before_it():
    def broken():
        yield 1
        yield 2
        raise ValueError("three")

    things = work_ahead(broken(), most=8)
    assert list(islice(things, 2)) == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(things)


def test_who_stops_leaves_no_thread():
    before = set(threading.enumerate())
    things = work_ahead(count(), most=2)
    assert next(things) == 0
    things.close()
    assert set(threading.enumerate()) <= before
