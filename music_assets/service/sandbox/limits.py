"""Layer 3, from inside: what a worker process gives up before it takes the first query. None of it can be taken back.

`rlimit` bounds memory and forbids writing to files. On Linux with Landlock the process also keeps no right to write,
make or remove anything, to start a program, to open a network connection, and to read beyond the folders it is given.
"""

import ctypes
import os
import resource
from collections.abc import Iterable
from pathlib import Path

OPEN_FILES = 512

# Numbers of linux/landlock.h and linux/prctl.h.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 5: 1 << 16}
"""ABI version: the first right of the file system that it does not know yet."""
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


def forbid_files_and_network(readable: Iterable[Path]) -> bool:
    """Give up writing files, programs and the network, and reading outside these folders; call it before any thread.

    Returns whether the kernel keeps it (Landlock); the limits on file size and core dumps hold everywhere.
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
    kept = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return kept


def bound_memory(more: int) -> None:
    """Let the process's address space grow by that many bytes from here on, and no further (where /proc tells it)."""
    status = Path("/proc/self/statm")
    if status.exists():
        limit = int(status.read_text(encoding="ascii").split()[0]) * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
