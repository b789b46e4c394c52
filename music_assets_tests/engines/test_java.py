"""The Java check before Spark starts. The message for missing Java is in end_to_end/test_spark.py."""

from pathlib import Path

import pytest

from music_assets.engines.java import JavaMissingError, check_java


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'openjdk version \"11.0.22\" 2024-01-16' >&2", 'is too old (openjdk version "11.0.22" 2024-01-16)'),
        ("echo 'java version \"1.8.0_391\"' >&2", 'is too old (java version "1.8.0_391")'),
        ("exit 1", "cannot be run"),
    ],
)
def test_unusable_java_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaMissingError) as raised:
        check_java()
    assert str(raised.value).startswith(f"{java} {problem}")
