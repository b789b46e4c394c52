"""Whether this machine has the Java that Spark needs. Checked before anything of Spark is imported."""

import re
import shutil
import subprocess

from music_assets.settings import ForeignVariables

MINIMUM_JAVA = 17


class JavaMissingError(Exception):
    """There is no Java on this machine, or it is too old for Spark."""


def check_java() -> None:
    """Raise JavaMissingError unless the Java that Spark would start, from JAVA_HOME or else the PATH, is new enough."""
    home = ForeignVariables().java_home
    java = home / "bin/java" if home else shutil.which("java")
    if java is None:
        raise _missing("There is no java on the PATH, and JAVA_HOME is not set")
    try:
        output = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise _missing(f"{java} cannot be run ({error})") from None
    version = re.search(r'version "(\d+)', output)
    if version is None or int(version[1]) < MINIMUM_JAVA:
        raise _missing(f"{java} is too old ({output.partition(chr(10))[0]})")


def _missing(problem: str) -> JavaMissingError:
    return JavaMissingError(
        f"{problem}. MUSIC_ASSETS_ENGINE=spark needs Java {MINIMUM_JAVA} or later: install it (on Debian: apt-get "
        f"install openjdk-{MINIMUM_JAVA}-jre-headless), or set JAVA_HOME to its folder. MUSIC_ASSETS_ENGINE=duckdb "
        "needs no Java. No file was changed."
    )
