"""Small results of queries, kept until the next snapshot, so that a repeated query needs no worker."""

from collections import OrderedDict
from typing import Any

MAX_RESULTS = 512
MAX_RESULT_BYTES = 32 * 1024
"""Size up to which an encoded result is kept, together with the identity of its query."""

Result = tuple[dict[str, Any], bytes]
"""The summary and the encoded rows."""


class ResultCache:
    """The results of one data version that were used last, by the identity of the query."""

    def __init__(self) -> None:
        self._data_version = ""
        self._results: OrderedDict[bytes, Result] = OrderedDict()

    def get(self, data_version: str, identity: bytes) -> Result | None:
        """Return the result of a query; None if it is not known for this data version."""
        if data_version != self._data_version or identity not in self._results:
            return None
        self._results.move_to_end(identity)
        return self._results[identity]

    def put(self, identity: bytes, summary: dict[str, Any], content: bytes) -> None:
        """Keep the result of a query, unless it is large or would differ the next time."""
        if summary["volatile"] or len(identity) + len(content) > MAX_RESULT_BYTES:
            return
        if summary["data_version"] != self._data_version:
            self._data_version = summary["data_version"]
            self._results.clear()
        self._results[identity] = summary, content
        if len(self._results) > MAX_RESULTS:
            self._results.popitem(last=False)
