"""Whether this machine has the Java that Spark needs; told before anything of Spark is imported, or a file touched."""

import os
import re
import shutil
import subprocess

OLDEST_JAVA = 17


class JavaMissingError(Exception):
    """Spark cannot run: there is no Java on this machine, or it is too old."""


def check_java() -> None:
    """Raise JavaMissingError unless the Java that Spark would start, JAVA_HOME's or else the PATH's, is new enough."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    if java is None:
        raise _missing("There is no java on the PATH, and JAVA_HOME is not set")
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise _missing(f"{java} cannot be run ({error})") from None
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise _missing(f"{java} is too old ({told.partition(chr(10))[0]})")


def _missing(problem: str) -> JavaMissingError:
    return JavaMissingError(
        f"{problem}. MUSIC_ASSETS_ENGINE=spark needs Java {OLDEST_JAVA} or later: install it (on Debian: apt-get "
        f"install openjdk-{OLDEST_JAVA}-jre-headless), or set JAVA_HOME to its folder. MUSIC_ASSETS_ENGINE=duckdb "
        "needs no Java. Nothing was touched."
    )
