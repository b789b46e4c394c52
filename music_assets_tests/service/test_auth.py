"""API keys, the rate limit, and the hosts that the service answers to."""

from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from music_assets import cli
from music_assets.service.app import serve
from music_assets.service.auth import api_keys, key_name
from music_assets.settings import Settings, SettingsError
from music_assets_tests.service.conftest import Dataset, serving


def test_rate_limit_per_key(dataset: Dataset) -> None:
    keys = {"ann": "a-key", "bob": "b-key"}
    entries = ",".join(f"{name}:{sha256(key.encode()).hexdigest()}" for name, key in keys.items())
    with serving(dataset.root, api_keys=entries, rate_limit="3/hour", query_workers=1) as service:

        def status(key: str) -> int:
            return service.http.get("/tables", headers={"Authorization": f"Bearer {key}"}).status_code

        assert [status("a-key") for _ in range(5)] == [200, 200, 200, 429, 429]
        assert status("b-key") == 200
        refused = service.http.get("/tables", headers={"Authorization": "Bearer a-key"})
        assert int(refused.headers["retry-after"]) >= 1
        assert service.http.get("/healthz").status_code == 200


def test_only_public_endpoints_answer_without_a_key(dataset: Dataset) -> None:
    entry = f"ann:{sha256(b'secret').hexdigest()}"
    with serving(dataset.root, api_keys=entry, query_workers=1) as service:
        document = service.http.get("/openapi.json").json()
        for path, methods in document["paths"].items():
            for method in methods:
                for authorization in ("", "Bearer", "Bearer wrong", "Basic secret", f"Bearer {entry[4:]}"):
                    response = service.http.request(method, path, headers={"Authorization": authorization})
                    assert (response.status_code == 401) == (path not in ("/healthz", "/readyz")), (path, authorization)
        headers = {"Authorization": "bearer secret", "Host": "music.example"}
        assert service.http.get("/tables", headers=headers).status_code == 200


def test_keys_come_from_setting_and_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(
        f"# team\nann:{sha256(b'1').hexdigest()}\n\nbob:{sha256(b'2').hexdigest()} # left\n", encoding="utf-8"
    )
    keys = api_keys(Settings(api_keys=f"eve:{sha256(b'3').hexdigest()}", api_keys_file=file))  # type: ignore[arg-type]
    assert [key_name(keys, key) for key in "1234"] == ["ann", "bob", "eve", None]


def test_scopes(dataset: Dataset) -> None:
    def entry(name: str, scopes: str) -> str:
        return f"{name}:{sha256(name.encode()).hexdigest()}{scopes}"

    entries = ",".join(
        [entry("reader", ":read"), entry("trainer", ":train"), entry("both", ":read+train"), entry("old", "")]
    )
    allowed = {"reader": (200, 403), "trainer": (403, 503), "both": (200, 503), "old": (200, 503)}
    with serving(dataset.root, api_keys=entries, query_workers=1) as service:
        for name, statuses in allowed.items():
            headers = {"Authorization": f"Bearer {name}"}
            read = service.http.get("/query?query=SELECT+1", headers=headers).status_code
            train = service.http.post("/embedding-runs", headers=headers).status_code
            assert (read, train) == statuses, name


def test_key_file_that_is_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        api_keys(Settings(api_keys_file=file))


def test_digest_of_the_empty_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="empty key"):
        api_keys(Settings(api_keys=f"ann:{sha256(b'').hexdigest()}"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "entry", ["ann", "ann:123", "ann:" + "g" * 64, f"a:{'0' * 64},a:{'1' * 64}", ":" + "0" * 64, f"a:{'0' * 64}:write"]
)
def test_invalid_key_entries_prevent_the_start(dataset: Dataset, entry: str) -> None:
    with pytest.raises(SettingsError, match="NAME:DIGEST") as raised:
        serve(Settings(data=dataset.root, api_keys=entry))  # type: ignore[arg-type]
    assert entry not in str(raised.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "music.example"])
def test_other_machines_need_api_keys(dataset: Dataset, host: str) -> None:
    with pytest.raises(SettingsError, match="no API key is set"):
        serve(Settings(data=dataset.root, host=host))


def test_api_key_command_creates_a_valid_key() -> None:
    output = CliRunner().invoke(cli.app, ["api-key", "ann"]).stdout
    key, entry = (line.rpartition(" ")[2] for line in output.splitlines())
    assert key_name(api_keys(Settings(api_keys=entry)), key) == "ann"  # type: ignore[arg-type]
    assert CliRunner().invoke(cli.app, ["api-key", "a b"]).exit_code == 1
