"""Fuzzing, guided by coverage: `python -m music_assets_tests.fuzz csv|gate [options of libFuzzer]`, or `make fuzz`.

What it finds is written to a file `crash-...`; keep it as a case in `test_fuzz.py`.
"""

import sys
import tempfile
from pathlib import Path

import atheris

from music_assets_tests.fuzz.words import SQL_WORDS

with atheris.instrument_imports(include=["music_assets.ingest.exact_reader", "music_assets.service.sandbox.gate"]):
    from music_assets_tests.fuzz import csv_properties, gate_properties


def csv_of(provider: atheris.FuzzedDataProvider) -> bytes:
    """Return the bytes of a file: now and then any, mostly the header and pieces."""
    if provider.ConsumeIntInRange(0, 7) == 0:
        return provider.ConsumeBytes(4096)
    header = provider.PickValueInList(csv_properties.HEADERS)
    pieces = [provider.PickValueInList(csv_properties.PIECES) for _ in range(provider.ConsumeIntInRange(0, 120))]
    return header + b"".join(pieces) + provider.ConsumeBytes(64)


def sql_of(provider: atheris.FuzzedDataProvider) -> str:
    """Return a text: now and then any, mostly words of SQL."""
    if provider.ConsumeIntInRange(0, 7) == 0:
        return provider.ConsumeUnicodeNoSurrogates(400)
    words = [provider.PickValueInList(SQL_WORDS) for _ in range(provider.ConsumeIntInRange(1, 30))]
    return " ".join([*(["SELECT"] if provider.ConsumeBool() else []), *words])


def main() -> None:
    """Fuzz what the first argument names; the other arguments are libFuzzer's."""
    target = sys.argv.pop(1)
    path = Path(tempfile.mkdtemp()) / "fuzzed.csv"
    keeper = gate_properties.Gatekeeper()

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        if target == "csv":
            csv_properties.check(path, csv_of(provider))
        else:
            keeper.check(sql_of(provider))

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
