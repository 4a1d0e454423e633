"""Settings: one table, four sources, and names that are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci.errors import Invalid
from ci.server.config import PREFIX, SETTINGS, Settings

ROOT = Path(__file__).parent.parent.parent


def test_the_defaults_bind_loopback_only(tmp_path: Path) -> None:
    settings = Settings.load({}, folder=tmp_path)
    assert (settings.host, settings.port, settings.url) == ("127.0.0.1", 8000, "http://127.0.0.1:8000")
    assert settings.data_dir.is_absolute()


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "shipway.toml").write_text('host = "file"\nport = 1\nrunner = "off"\n')
    settings = Settings.load(
        {"SHIPWAY_PORT": "2", "SHIPWAY_HOST": "env"}, {"host": "flag", "port": None}, tmp_path
    )
    assert (settings.host, settings.port, settings.runner) == ("flag", 2, "off")


def test_the_url_follows_the_address_unless_it_is_set(tmp_path: Path) -> None:
    assert Settings.load({}, {"host": "::1", "port": 9}, tmp_path).url == "http://[::1]:9"
    assert Settings.load({}, {"host": "0.0.0.0"}, tmp_path).url == "http://127.0.0.1:8000"
    assert Settings.load({}, {"url": "https://ci.example.com/"}, tmp_path).url == "https://ci.example.com"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "unknown setting 'prot'; did you mean 'port'?"),
        ("zzzzzz = 1", "there are data_dir"),
        ("port = true", "whole number"),
        ("port = -1", "whole number"),
        ('port = "x"', "not 'x'"),
        ("host = 1", "must be a text"),
        ('runner = "maybe"', "one of auto, on, off"),
        ("port = ", "is no TOML"),
    ],
)
def test_a_wrong_line_of_the_file_is_named_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "shipway.toml").write_text(text)
    with pytest.raises(Invalid) as error:
        Settings.load({}, folder=tmp_path)
    assert says in str(error.value)
    assert "shipway.toml" in str(error.value)


def test_a_slip_in_the_environment_is_named_and_strange_variables_are_not_ours(tmp_path: Path) -> None:
    Settings.load({"SHIPWAY_TEST_ALL": "1", "PATH": "x"}, folder=tmp_path)
    with pytest.raises(Invalid, match="did you mean 'data_dir'"):
        Settings.load({"SHIPWAY_DATADIR": "x"}, folder=tmp_path)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot read"):
        Settings.load({"SHIPWAY_CONFIG": str(tmp_path / "gone.toml")}, folder=tmp_path)


def test_the_documentation_is_the_table() -> None:
    lines = (ROOT / "docs/reference/settings.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert rows == [row(setting) for setting in SETTINGS]


def row(setting) -> str:  # type: ignore[no-untyped-def]
    default = f"`{setting.default}`" if setting.default != "" else "(empty)"
    unit = (
        setting.unit
        or ", ".join(f"`{choice}`" for choice in setting.choices)
        or {Path: "path", int: "number", str: "text"}[setting.type]
    )
    return f"| `{setting.name}` | `{PREFIX}{setting.name.upper()}` | {unit} | {default} | {setting.help} |"


def test_proxies_are_addresses_or_networks(tmp_path: Path) -> None:
    environ = {"SHIPWAY_TRUSTED_PROXIES": "10.0.0.0/8,  ::1 ,"}
    assert Settings.load(environ, folder=tmp_path).trusted_proxies == "10.0.0.0/8,::1"
    for text in ("*", "proxy.example", "10.0.0.1/8"):
        with pytest.raises(Invalid, match="no address and no network"):
            Settings.load({"SHIPWAY_TRUSTED_PROXIES": text}, folder=tmp_path)


def test_images_of_privileged_plugins_have_no_tag(tmp_path: Path) -> None:
    loaded = Settings.load({"SHIPWAY_PRIVILEGED_PLUGINS": "plugins/docker,ghcr.example/a/b"}, None, tmp_path)
    assert loaded.images_of_privileged_plugins == ("plugins/docker", "ghcr.example/a/b")
    with pytest.raises(Invalid, match="'plugins/docker:20' is no image without a tag"):
        Settings.load({"SHIPWAY_PRIVILEGED_PLUGINS": "plugins/docker:20"}, None, tmp_path)
