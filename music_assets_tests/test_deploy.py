"""The files of deploy/: systemd units, image, compose file, Helm values and IAM policies.

`make lint` checks the Dockerfile with hadolint and the compose file against its schema.
"""

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from music_assets.data_root import DataRoot
from music_assets.defs.jobs import refresh_rankings
from music_assets.runtime.dagster_home import INSTANCE_FILE
from music_assets.settings import PREFIX, Settings
from music_assets.tables import RAW_TABLES, TABLES
from music_assets_tests.support.processes import BIN, REPOSITORY

DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PROGRAMS = "/opt/music-assets/current/bin"
MAXIMUM_EXPOSURE = 20
"""In tenths: `systemd-analyze security` calls up to 2.0 OK, and 9.6 is a unit without any hardening."""
POLICIES = sorted((DEPLOY / "aws").glob("*.json"))
ROOT_FOLDERS = {
    DataRoot(Path("/PREFIX")).snapshots,
    *(DataRoot(Path("/PREFIX")).table_folder(table) for table in TABLES),
    *(DataRoot(Path("/PREFIX")).drop_folder(table) for table in RAW_TABLES),
}


def read_unit(path: Path) -> dict[str, str]:
    """Return the section [Service] of a unit. Of a key that occurs several times the last value counts."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path)
    return dict(unit["Service"])


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def values() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "kubernetes/values.yaml").read_text(encoding="utf-8"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_are_valid_and_hardened(unit: Path, tmp_path: Path) -> None:
    for path in (DEPLOY / "systemd").glob("music-assets*"):
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAMS, str(BIN)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name], capture_output=True, text=True, check=False
    )
    assert [line for line in verified.stderr.splitlines() if "music-assets" in line] == []
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MAXIMUM_EXPOSURE}", unit],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def test_compose_runs_the_commands_of_the_units() -> None:
    services = compose()["services"]

    def without_place(command: str) -> list[str]:
        return re.sub(r"--host \S+", "", command.replace(f"{PROGRAMS}/", "")).split()

    for part in ("code", "daemon", "web"):
        unit = read_unit(DEPLOY / f"systemd/music-assets-{part}.service")
        assert without_place(services[part]["command"]) == without_place(unit["ExecStart"])


def test_every_container_is_confined_and_checked() -> None:
    for name, service in compose()["services"].items():
        if service["image"].startswith("music-assets:"):
            assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert "healthcheck" in service or service["restart"] == "on-failure", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_settings_exist() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    assert files
    for path in files:
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]+[A-Z]\b", path.read_text(encoding="utf-8")))
        assert named <= known, path


def test_kubernetes_limits_runs_as_the_instance_does() -> None:
    limits = yaml.safe_load(INSTANCE_FILE.read_text(encoding="utf-8"))["concurrency"]["runs"]
    queue = values()["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue["maxConcurrentRuns"] == limits["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == limits["tag_concurrency_limits"]
    assert queue["tagConcurrencyLimits"][0]["key"] in refresh_rankings.tags


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_policies_name_folders_of_a_data_root(policy: Path) -> None:
    for statement in json.loads(policy.read_text(encoding="utf-8"))["Statement"]:
        assert statement["Effect"] == "Allow"
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            folder = re.sub(r"^arn:aws:s3:::(LOG_)?BUCKET|/\*$", "", resource)
            assert folder in ("", "/PREFIX", "/PREFIX/.layout_version") or any(
                each.is_relative_to(folder) for each in ROOT_FOLDERS
            ), resource


def test_only_the_code_server_may_write_tables() -> None:
    for policy in POLICIES:
        statements = json.loads(policy.read_text(encoding="utf-8"))["Statement"]
        written = [
            each["Resource"] for each in statements if {"s3:PutObject", "s3:DeleteObject"} & {*_as_list(each["Action"])}
        ]
        tables = [each for each in written if any(part in str(each) for part in ("PREFIX/*", "parquet", "music_db"))]
        assert bool(tables) == (policy.stem == "code-server"), policy.stem


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


class TestSwitchRelease:
    """The script, with programs in the place of systemd's that record how they are called."""

    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        """Return a folder with two releases, of which 1 is the current one."""
        for release in ("1", "2"):
            program = tmp_path / "releases" / release / "bin/dagster"
            program.parent.mkdir(parents=True)
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
        (tmp_path / "current").symlink_to("releases/1")
        return tmp_path

    def switch(self, base: Path, release: str, loads: bool = True, starts: bool = True) -> tuple[int, str, list[str]]:
        """Return the exit code, the error output, and the calls of systemctl with the release that was current."""
        fake, calls = base / "fake", base / "calls"
        fake.mkdir()
        calls.touch()
        is_broken = f'[ "$(readlink {base}/current)" = releases/2 ]' if not starts else "false"
        programs = {
            "systemd-run": f"exit {0 if loads else 1}",
            "systemctl": f'echo "$(readlink {base}/current) $*" >> {calls}; ! {is_broken}',
        }
        for name, body in programs.items():
            (fake / name).write_text(f"#!/bin/sh\n{body}\n")
            (fake / name).chmod(0o755)
        done = subprocess.run(
            [DEPLOY / "systemd/switch-release", release],
            env={"PATH": f"{fake}:{os.environ['PATH']}", "RELEASES_BASE": str(base)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr, calls.read_text().splitlines()

    def test_the_code_server_is_restarted_first(self, base: Path) -> None:
        code, _, calls = self.switch(base, "2")
        assert code == 0
        assert calls == [
            "releases/2 restart music-assets-code.service",
            "releases/2 restart music-assets-daemon.service music-assets-web.service music-assets-query.service",
        ]

    def test_a_release_that_does_not_load_changes_nothing(self, base: Path) -> None:
        code, error, calls = self.switch(base, "2", loads=False)
        assert (code, calls, str((base / "current").readlink())) == (1, [], "releases/1")
        assert "releases/2 do not load, see above. Nothing was changed." in error

    def test_a_release_that_does_not_start_is_taken_back(self, base: Path) -> None:
        code, error, calls = self.switch(base, "2", starts=False)
        assert (code, str((base / "current").readlink())) == (1, "releases/1")
        assert [call.split()[0] for call in calls] == ["releases/2", "releases/1"]
        assert "Back to releases/1." in error

    def test_a_release_that_is_not_installed_is_refused(self, base: Path) -> None:
        code, error, calls = self.switch(base, "3")
        assert (code, calls) == (1, [])
        assert "releases/3 is not an installed release." in error
