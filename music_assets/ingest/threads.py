"""Work in a thread beside what else is done, which nobody who interrupts a run has to wait for."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def begin(work: Callable[[], Result]) -> "Future[Result]":
    """Begin the work. Whoever asks the future for the result can be interrupted while it waits."""
    future = Future[Result]()
    # A daemon, unlike the threads of a pool: a process does not wait for it when it ends.
    threading.Thread(target=settle, args=[future, work], daemon=True).start()
    return future


def settle(future: "Future[Result]", work: Callable[[], Result]) -> None:
    """Do the work here and now, and put what came of it into the future, be it an error."""
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
