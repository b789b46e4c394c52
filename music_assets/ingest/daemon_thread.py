"""Work in a daemon thread. The pools of the standard library delay an interrupted process until their work is done."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def run_in_thread(work: Callable[[], Result]) -> "Future[Result]":
    """Start the work in a daemon thread and return its future result."""
    future = Future[Result]()
    Thread(target=resolve, args=[future, work], daemon=True).start()
    return future


def resolve(future: "Future[Result]", work: Callable[[], Result]) -> None:
    """Do the work and put its result, or the error it raised, into the future."""
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
