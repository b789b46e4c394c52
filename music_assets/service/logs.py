"""Logging that never waits: a thread writes the lines, and lines are dropped if nobody reads them.

The access log goes to standard output, one JSON object per line; everything else to standard error.
"""

import logging
import os
import queue
import threading
import time
from contextlib import suppress

MAX_LINES = 10_000
"""Lines that may wait to be written."""
PAUSE_SECONDS = 0.05
"""Time in which lines are collected. Waking the thread for each line would take a sixth of the time of a request."""
FLUSH_SECONDS = 2.0
ACCESS_LOG = "music_assets.access"
LOGGERS = (ACCESS_LOG, "uvicorn", "music_assets")


class NonBlockingHandler(logging.Handler):
    """Writes to a file descriptor from a thread. The number of dropped lines is written in front of the next line."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes] = queue.Queue(MAX_LINES)
        self._dropped = 0
        threading.Thread(target=self._write_lines, daemon=True, name=f"log {descriptor}").start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        try:
            self._lines.put_nowait(self.format(record).encode(errors="backslashreplace") + b"\n")
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait for the lines to be written, for a bounded time."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)

    def _write_lines(self) -> None:
        while True:
            lines = [self._lines.get()]
            time.sleep(PAUSE_SECONDS)
            lines += [self._lines.get() for _ in range(self._lines.qsize())]
            text = b"".join(lines)
            if self._dropped:
                text = b"%d log lines were dropped, since nobody read them.\n" % self._dropped + text
                self._dropped = 0
            with suppress(OSError):  # the other end of the pipe is closed
                while text:
                    text = text[os.write(self._descriptor, text) :]
            for _ in lines:
                self._lines.task_done()


def configure_logging() -> None:
    """Send the logs of the service, and of its HTTP server, to standard output and standard error."""
    access, errors = NonBlockingHandler(1), NonBlockingHandler(2)
    errors.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, handler in zip(LOGGERS, (access, errors, errors), strict=True):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    # Warnings of all other libraries, also instead of the handler that the MCP library installs, which can wait.
    logging.basicConfig(level=logging.WARNING, handlers=[errors], force=True)


def flush_logs() -> None:
    """Wait for the lines to be written, for a bounded time: a process that ends by a signal runs no exit handlers."""
    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.flush()
