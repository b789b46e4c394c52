"""Files that are not loaded: recognised by their name, or by their first bytes, each with the remedy.

The words are the same for `music-assets drop`, the sensor, the log of a run and the reason of a rejected file.
"""

from pathlib import PurePath

from music_assets.ingest.file_names import CSV_SUFFIXES, is_csv_name

IN_PROGRESS_PREFIXES = (".", "_")
IN_PROGRESS_SUFFIXES = (".tmp", ".part", ".crdownload")
ZIP = "a zip archive or an Excel workbook: unpack the archive, or save the sheet as CSV UTF-8"
GZIP = "gzip-compressed: if it is a CSV file, name it .csv.gz"
ZSTANDARD = "compressed with zstd: decompress it, or compress it with gzip as .csv.gz"
BZIP2 = "compressed with bzip2: decompress it, or compress it with gzip as .csv.gz"
XZ = "compressed with xz: decompress it, or compress it with gzip as .csv.gz"
SEVEN_ZIP = "a 7z archive: unpack it"
EXCEL = "an Excel workbook: save the sheet as CSV UTF-8"
PARQUET = "a Parquet file: export it as CSV"
TAB_SEPARATED = "tab-separated values: export with commas, as .csv"
BY_SUFFIX = {
    ".zip": ZIP,
    ".gz": GZIP,
    ".zst": ZSTANDARD,
    ".zstd": ZSTANDARD,
    ".bz2": BZIP2,
    ".xz": XZ,
    ".7z": SEVEN_ZIP,
    ".xls": EXCEL,
    ".xlsx": EXCEL,
    ".parquet": PARQUET,
    ".tsv": TAB_SEPARATED,
}
BY_FIRST_BYTES = {
    b"PK\x03\x04": ZIP,
    b"\x1f\x8b": GZIP,
    b"\x28\xb5\x2f\xfd": ZSTANDARD,
    b"BZh": BZIP2,
    b"\xfd7zXZ\x00": XZ,
    b"7z\xbc\xaf\x27\x1c": SEVEN_ZIP,
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": EXCEL,
    b"PAR1": PARQUET,
    b"\x00\x05\x16\x07": "metadata that macOS wrote next to a file (AppleDouble): delete it",
}


def is_in_progress(name: str) -> bool:
    """Return whether the name says that the file is still being written."""
    return name.startswith(IN_PROGRESS_PREFIXES) or name.lower().endswith(IN_PROGRESS_SUFFIXES)


def problem_of_name(name: str) -> str | None:
    """Return why a file of that name is not loaded, and the remedy; None if it is loaded."""
    if name.startswith(IN_PROGRESS_PREFIXES):
        return f'its name begins with "{name[0]}", which marks a file in progress: rename it when it is complete'
    if is_csv_name(name):
        return None
    suffix = PurePath(name).suffix.lower()
    if suffix in IN_PROGRESS_SUFFIXES:
        return f"its name ends in {suffix}, which marks a file in progress: rename it when it is complete"
    return BY_SUFFIX.get(
        suffix, f"its name ends neither in {' nor in '.join(CSV_SUFFIXES)}: rename it if it is CSV with commas"
    )


def problem_of_content(start: bytes) -> str | None:
    """Return why a file that starts with these bytes cannot be loaded as CSV, and the remedy; None if it may be CSV."""
    return next((kind for magic, kind in BY_FIRST_BYTES.items() if start.startswith(magic)), None)
