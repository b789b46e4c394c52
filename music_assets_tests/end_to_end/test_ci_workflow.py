"""The job `deployment` of the CI workflow: its steps run in a plain shell, as a runner would run them."""

import subprocess
from pathlib import Path

import yaml

from music_assets_tests.support.processes import BIN, REPOSITORY, clean_environment

WORKFLOW = REPOSITORY / ".github" / "workflows" / "ci.yml"


def test_deployment_steps_pass(tmp_path: Path) -> None:
    job = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["deployment"]
    variables = {name: value.replace("${{ github.workspace }}", str(tmp_path)) for name, value in job["env"].items()}
    environment = clean_environment(tmp_path / "data", **variables)
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    steps = [step for step in job["steps"] if "run" in step and "make install" not in step["run"]]
    assert [step["name"] for step in steps][-1] == "Check the results"
    for step in steps:
        ended = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, f"{step['name']}:\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
