"""Character encodings of CSV files: transcoding to UTF-8, and what a file looks like that is not UTF-8.

Both readers read UTF-8. Deliveries in another encoding are transcoded before, if the setting `encoding` names it.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from music_assets.ingest.csv_header import BadFileError, open_csv

BLOCK_BYTES = 1 << 20
SAMPLE_LINES = 1_000
LONGEST_SAMPLE_BYTES = 1 << 16
NOT_ASCII = re.compile(rb"[\x80-\xff]+")
MAXIMUM_RUN = 1.5
"""Average length of a run of bytes outside ASCII in Western European text, whose other letters are ASCII."""


def transcode(source: Path, target: Path, encoding: str) -> None:
    """Write the text of a CSV file, decompressed, to `target` as UTF-8.

    Raises BadFileError if the file cannot be read to its end, or is not in this encoding.
    """
    with target.open("wb") as file:
        file.writelines(_utf8_blocks(source, encoding))


def _utf8_blocks(source: Path, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    read = 0
    with open_csv(source) as file:
        while True:
            block = file.read(BLOCK_BYTES)
            read += len(block)
            try:
                yield decoder.decode(block, final=not block).encode()
            except UnicodeDecodeError as error:
                offset = read - len(error.object) + error.start
                reason = f"the byte at offset {offset:,} cannot be decoded: {error.reason}"
                raise BadFileError(f"not {encoding}: {reason}") from None
            except UnicodeError as error:
                raise BadFileError(f"not {encoding}: {error}") from None
            if not block:
                return


def describe_encoding(path: Path) -> str:
    """Return what encoding a file with rows that are not UTF-8 looks like, and the remedy, as a sentence."""
    sample: list[bytes] = []
    utf8_lines = 0
    with open_csv(path) as file:
        while len(sample) < SAMPLE_LINES and (line := file.readline(LONGEST_SAMPLE_BYTES)):
            if line.isascii():
                continue
            if _decodes(line, "utf-8"):
                utf8_lines += 1
            else:
                sample.append(line)
    if utf8_lines:
        return "Other rows of the file are UTF-8: export these rows as UTF-8, too."
    text = b"".join(sample)
    runs = NOT_ASCII.findall(text)
    if _decodes(text, "windows-1252") and len(b"".join(runs)) <= MAXIMUM_RUN * len(runs):
        return "The file looks like Windows-1252; set MUSIC_ASSETS_ENCODING=windows-1252 and drop it again."
    return (
        "The encoding is unknown; export the file as UTF-8, or set MUSIC_ASSETS_ENCODING to its encoding "
        "(windows-1251 or gbk, for instance) and drop it again."
    )


def _decodes(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
