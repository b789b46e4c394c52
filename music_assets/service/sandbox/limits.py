"""Layer 3: restrictions that a worker process imposes on itself, irrevocably, before its first query.

`rlimit` limits memory and forbids writing to files. On Linux with Landlock the process also cannot create or delete
files, start programs, open network connections, or read outside the folders that it is given.
"""

import ctypes
import os
import resource
from collections.abc import Iterable
from pathlib import Path

OPEN_FILES = 512
EXTRA_ADDRESS_SPACE = 768 * 2**20
"""Bytes that a worker may use on top of DuckDB's memory limit: threads, the result as Arrow data and encoded."""

# Numbers of linux/landlock.h and linux/prctl.h.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 5: 1 << 16}
"""The first file system right that is unknown to each ABI version."""
_NETWORK_SINCE, _NETWORK_RIGHTS = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL = 9


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def restrict_process(readable: Iterable[Path]) -> bool:
    """Forbid writing files, starting programs, networking, and reading outside these folders.

    Call it before any thread starts. Returns whether Landlock enforces it; limits on file size and core dumps always
    apply.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        return _landlock(libc, readable)
    except (OSError, AttributeError):
        return False


def _landlock(libc: ctypes.CDLL, readable: Iterable[Path]) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    if version < 1:
        return False
    first_unknown = max(bit for since, bit in _FILE_RIGHTS.items() if since <= version)
    rules = _Ruleset(
        files=first_unknown - 1,
        network=_NETWORK_RIGHTS if version >= _NETWORK_SINCE else 0,
        scopes=_SCOPES if version >= _SCOPES_SINCE else 0,
    )
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    if ruleset < 0:
        return False
    for path in filter(Path.exists, readable):
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathBeneath(_READ_FILE | _READ_DIR, folder)
        libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        os.close(folder)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    restricted = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return restricted


def limit_memory(extra_bytes: int) -> None:
    """Limit the growth of the process's address space from now on. Does nothing on systems without /proc."""
    if used := address_space("self"):
        resource.setrlimit(resource.RLIMIT_AS, (used + extra_bytes, used + extra_bytes))


def address_space(process: int | str) -> int:
    """Return the bytes of a process's address space; 0 if it has ended, and on systems without /proc."""
    try:
        status = Path(f"/proc/{process}/statm").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(status.split()[0]) * resource.getpagesize()
