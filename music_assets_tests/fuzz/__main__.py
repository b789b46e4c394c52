"""Coverage-guided fuzzing: `python -m music_assets_tests.fuzz csv|gate [libFuzzer options]`, or `make fuzz`.

An input that breaks a property is written to a file `crash-...`. Add it to test_fuzz.py.
"""

import sys
import tempfile
from pathlib import Path

import atheris

from music_assets_tests.fuzz.sql_words import SQL_WORDS

with atheris.instrument_imports(include=["music_assets.ingest.exact_reader", "music_assets.service.sandbox.gate"]):
    from music_assets_tests.fuzz import csv_properties, gate_properties


def csv_of(provider: atheris.FuzzedDataProvider) -> bytes:
    """Return the content of a file: sometimes random bytes, mostly a header and pieces of CSV."""
    if provider.ConsumeIntInRange(0, 7) == 0:
        return provider.ConsumeBytes(4096)
    header = provider.PickValueInList(csv_properties.HEADERS)
    pieces = [provider.PickValueInList(csv_properties.PIECES) for _ in range(provider.ConsumeIntInRange(0, 120))]
    return header + b"".join(pieces) + provider.ConsumeBytes(64)


def sql_of(provider: atheris.FuzzedDataProvider) -> str:
    """Return a statement: sometimes random text, mostly words of SQL."""
    if provider.ConsumeIntInRange(0, 7) == 0:
        return provider.ConsumeUnicodeNoSurrogates(400)
    words = [provider.PickValueInList(SQL_WORDS) for _ in range(provider.ConsumeIntInRange(1, 30))]
    return " ".join([*(["SELECT"] if provider.ConsumeBool() else []), *words])


def main() -> None:
    """Fuzz the target that the first argument names; libFuzzer gets the other arguments."""
    target = sys.argv.pop(1)
    path = Path(tempfile.mkdtemp()) / "fuzzed.csv"
    checker = gate_properties.GateChecker()

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        if target == "csv":
            csv_properties.check(path, csv_of(provider))
        else:
            checker.check(sql_of(provider))

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
