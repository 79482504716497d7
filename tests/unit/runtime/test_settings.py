"""Settings: order of the sources, types and bounds, and errors that say what to change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rmi_runtime.settings import (
    FIELDS,
    OTHER_VARIABLES,
    Settings,
    SettingsError,
    check_reachable,
    is_loopback,
    load_settings,
    rule_of,
    split_address,
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory without rmi.toml."""
    monkeypatch.chdir(tmp_path)


def toml(text: str) -> Path:
    path = Path("rmi.toml")
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_source_the_defaults_are_in_force() -> None:
    loaded = load_settings(env={})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.settings.ns == ("127.0.0.1:9090",)
    assert loaded.settings.data_dir == Path("var")


def test_each_later_source_wins_and_is_named() -> None:
    toml("business = 4\nloggers = 4\nmessages = 4\n")
    loaded = load_settings(
        env={"RMI_LOGGERS": "5", "RMI_MESSAGES": "5", "PATH": "/bin"}, flags={"messages": 6}
    )
    settings = loaded.settings
    assert (settings.business, settings.loggers, settings.messages) == (4, 5, 6)
    assert loaded.sources["business"] == "rmi.toml"
    assert loaded.sources["loggers"] == "RMI_LOGGERS"
    assert loaded.sources["messages"] == "--messages"
    assert loaded.sources["http"] == "default"


def test_flags_that_were_not_given_change_nothing() -> None:
    loaded = load_settings(env={}, flags={"business": None, "restart": False, "data_dir": "d"})
    assert loaded.settings.business == 3
    assert loaded.sources["business"] == "default"
    assert loaded.settings.restart is False
    assert loaded.sources["restart"] == "--no-restart"
    assert loaded.sources["data_dir"] == "--data-dir"


def test_every_type_can_be_given_as_text_in_the_environment() -> None:
    env = {
        "RMI_DATA_DIR": "/srv/rmi",
        "RMI_NS": "127.0.0.1:1, [::1]:2",
        "RMI_DEMO": "yes",
        "RMI_RESTART": "0",
        "RMI_LEASE_S": "1.5",
        "RMI_QUEUE_MAX": "10",
        "RMI_LOG_LEVEL": "debug",
    }
    settings = load_settings(env=env).settings
    assert settings.data_dir == Path("/srv/rmi")
    assert settings.ns == ("127.0.0.1:1", "[::1]:2")
    assert settings.demo is True
    assert settings.restart is False
    assert settings.lease_s == 1.5
    assert settings.queue_max == 10
    assert settings.log_level == "DEBUG"


def test_name_servers_may_be_a_list_in_the_file() -> None:
    toml('ns = ["127.0.0.1:1", "127.0.0.1:2"]')
    assert load_settings(env={}).settings.ns == ("127.0.0.1:1", "127.0.0.1:2")


def test_the_file_named_by_rmi_config_is_read() -> None:
    Path("other.toml").write_text("business = 7", encoding="utf-8")
    loaded = load_settings(env={"RMI_CONFIG": "other.toml"})
    assert loaded.settings.business == 7
    assert loaded.sources["business"] == "other.toml"


@pytest.mark.parametrize(
    ("env", "field", "says"),
    [
        ({"RMI_BUSINESS": "0"}, "business", "between 1 and 64"),
        ({"RMI_BUSINESS": "65"}, "business", "between 1 and 64"),
        ({"RMI_BUSINESS": "3.0"}, "business", "whole number"),
        ({"RMI_BUSINESS": "9" * 5000}, "business", "whole number"),
        ({"RMI_LEASE_S": "nan"}, "lease_s", "not a number"),
        ({"RMI_LEASE_S": "1e999"}, "lease_s", "not a number"),
        ({"RMI_LEASE_S": "soon"}, "lease_s", "not a number"),
        ({"RMI_DEMO": "perhaps"}, "demo", "neither true nor false"),
        ({"RMI_STORE": "postgres"}, "store", "sqlite, hazelcast"),
        ({"RMI_HTTP": "8080"}, "http", "host:port"),
        ({"RMI_HTTP": "127.0.0.1:99999"}, "http", "at most 65535"),
        ({"RMI_NS": "::1:9090"}, "ns", "brackets"),
        ({"RMI_HTTP": "http://127.0.0.1:8080"}, "http", "not host:port"),
        ({"RMI_HOST": "a..b"}, "host", "host name"),
        ({"RMI_HOST": "a" * 64}, "host", "host name"),
        ({"RMI_NS": "a..b:9090"}, "ns", "host name"),
        ({"RMI_NS": " , "}, "ns", "at least one"),
        ({"RMI_NS": "127.0.0.1:1,127.0.0.1:2, 127.0.0.1:1"}, "ns", "127.0.0.1:1' is there twice"),
        ({"RMI_HOST": ""}, "host", "host name"),
        ({"RMI_DATA_DIR": ""}, "data_dir", "path"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_and_source(
    env: dict[str, str], field: str, says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings(env=env)
    source = f"RMI_{field.upper()}"
    assert caught.value.fields == {"field": field, "source": source}
    assert caught.value.message.startswith(f"{source}: ")


@pytest.mark.parametrize("text", ["business = '3'", "business = true", "demo = 1", "http = 8080"])
def test_a_value_of_the_wrong_toml_type_is_refused(text: str) -> None:
    path = toml(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, env={})
    assert caught.value.fields["source"] == "rmi.toml"
    assert caught.value.message.startswith(f"rmi.toml: {caught.value.fields['field']}: ")


def test_an_unknown_key_in_the_file_is_refused_with_the_nearest_known_one() -> None:
    toml("busines = 3")
    with pytest.raises(SettingsError, match="did you mean 'business'"):
        load_settings(env={})


@pytest.mark.parametrize("variable", ["RMI_BUISNESS", "RMI_business", "RMI_"])
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(variable: str) -> None:
    with pytest.raises(SettingsError, match="did you mean 'RMI_") as caught:
        load_settings(env={variable: "3"})
    assert caught.value.fields["field"] == variable


@pytest.mark.parametrize("word", ["zzz", "colour", "x"])
def test_for_what_is_like_no_setting_none_is_suggested(word: str) -> None:
    with pytest.raises(SettingsError, match=rf"no setting is called .{word}.; docs/reference\.md"):
        load_settings(env={}, flags={word: 3})


def test_capitals_hide_no_name() -> None:
    with pytest.raises(SettingsError, match="did you mean 'RMI_BUSINESS'"):
        load_settings(env={"RMI_business": "3"})


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean 'loggers'"):
        load_settings(env={}, flags={"logers": 3})


def test_known_variables_that_are_no_settings_are_let_pass() -> None:
    env = dict.fromkeys(OTHER_VARIABLES, "7") | {"RMI_CONFIG": ""}
    assert load_settings(env=env).settings == Settings()


def test_a_named_file_must_exist() -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(Path("absent.toml"), env={})


def test_a_settings_file_that_is_a_link_to_nowhere_is_an_error() -> None:
    Path("rmi.toml").symlink_to("moved.toml")
    with pytest.raises(SettingsError, match=r"rmi\.toml cannot be read: No such file"):
        load_settings(env={})


@pytest.mark.parametrize("content", [b"business = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(content: bytes) -> None:
    Path("rmi.toml").write_bytes(content)
    with pytest.raises(SettingsError, match="it is not"):
        load_settings(env={})


TLS = {"tls_cert": "a.crt", "tls_key": "a.key", "tls_ca": "ca.crt"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("http", "0.0.0.0:8080"), ("host", "192.168.1.5"), ("ns", "127.0.0.1:9090,10.0.0.1:9090")],
)
def test_an_open_address_needs_tls_or_the_word_insecure(field: str, value: str) -> None:
    variable = f"RMI_{field.upper()}"
    env = {variable: value}
    with pytest.raises(SettingsError, match=r"tls_cert.*rmi certs.*--insecure") as caught:
        load_settings(env=env)
    assert caught.value.fields == {"field": field, "source": variable}
    assert load_settings(env=env, flags={"insecure": True}).settings.insecure
    assert load_settings(env=env, flags=TLS).settings.tls


@pytest.mark.parametrize("missing", TLS)
def test_tls_takes_certificate_key_and_ca(missing: str) -> None:
    given = {name: value for name, value in TLS.items() if name != missing}
    with pytest.raises(SettingsError, match=f"{missing}.* is needed as well"):
        load_settings(env={}, flags=given)
    assert not Settings().tls


@pytest.mark.parametrize(
    ("field", "value"), [("host", "0.0.0.0"), ("host", "::"), ("ns", "0.0.0.0:9090")]
)
def test_an_address_that_is_told_to_others_must_be_somebodys(field: str, value: str) -> None:
    with pytest.raises(SettingsError, match="nobody can connect"):
        load_settings(env={}, flags={field: value, "insecure": True})


@pytest.mark.parametrize(("field", "value"), [("host", "0.0.0.0"), ("ns", "[::]:9090")])
def test_whoever_asks_for_all_addresses_hears_at_once_what_others_need(
    field: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=r"tls_cert.* or the word --insecure"):
        load_settings(env={}, flags={field: value})
    with pytest.raises(SettingsError, match=r"this machine$"):
        load_settings(env={}, flags={field: value, "insecure": True})


def test_a_service_is_not_announced_to_others_at_an_address_of_this_machine_only() -> None:
    elsewhere = ("127.0.0.1:9090", "10.0.0.1:9090")
    with pytest.raises(SettingsError, match="--host"):
        check_reachable(Settings(ns=elsewhere, insecure=True))
    check_reachable(Settings(ns=elsewhere, insecure=True, host="10.0.0.2"))
    check_reachable(Settings())


def test_settings_built_directly_are_checked_too() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(queue_max=0)
    assert caught.value.fields == {"field": "queue_max", "source": "Settings"}
    with pytest.raises(SettingsError):
        Settings(business="3")  # type: ignore[arg-type]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().business = 5  # type: ignore[misc]


def test_every_field_is_explained_and_every_number_bounded() -> None:
    for name, field in FIELDS.items():
        rule = rule_of(name)
        assert rule.doc
        default = field.default
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert rule.unit, name
            assert rule.low is not None, name
            assert rule.high is not None, name
            assert rule.low <= default <= rule.high


@pytest.mark.parametrize(
    ("text", "parts"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:80", ("::1", 80)), ("box:65535", ("box", 65535))],
)
def test_an_address_is_split(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize("text", ["", ":", ":80", "box", "box:", "box:-1", "box:٣", "a:b:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        split_address(text)


def test_loopback_is_recognised() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "example.org"]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('data_dir = "~nobody.of.that.name/x"', "home directory"),
        ('data_dir = "a\\u0000b"', "is not a path"),
        ('http = "a b:80"\ninsecure = true', "is not a host name"),
        ('http = "a\\u001b[31m:80"\ninsecure = true', "is not a host name"),
        (f"lock_wait_s = 1{'0' * 400}", "is not a number"),
        (f"business = 1{'0' * 5000}", "cannot be read: it is not TOML"),
        (f"business = {'[' * 5000}", "cannot be read: it is not TOML"),
    ],
)
def test_whatever_a_file_says_is_answered_in_words(given: str, words: str) -> None:
    toml(given)
    with pytest.raises(SettingsError, match=words):
        load_settings(env={})


def test_a_file_that_is_far_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_text("# a comment\n" * 10_000)
    with pytest.raises(SettingsError, match="it has more than 100,000 characters"):
        load_settings(large, env={})


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load_settings(env={"RMI_DATA_DIR": "a\udcffb"})


def test_bounds_are_told_to_the_last_digit() -> None:
    with pytest.raises(SettingsError, match="0 is not between 1 and 1048576 MiB"):
        load_settings(env={"RMI_LOG_SIZE_MIB_MAX": "0"})
    with pytest.raises(SettingsError, match=r"0.0 is not between 0.01 and 60 s"):
        load_settings(env={"RMI_LOCK_WAIT_S": "0"})


@pytest.mark.parametrize("name", ["batch_max", "lease_s", "ns", "restart", "host", "store"])
def test_a_number_that_cannot_be_written_is_refused_in_words(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: a number of [0-9]+ bits is n"):
        Settings(**{name: 10**5000})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=f"{name}: a number of 20000 bits is n"):
        load_settings(toml(f"{name} = 0x{'f' * 5000}"), env={})


def test_a_rule_between_fields_names_its_field_once() -> None:
    with pytest.raises(SettingsError, match=r"^--host: nobody can connect to 0\.0\.0\.0"):
        load_settings(env={}, flags={"host": "0.0.0.0", "insecure": True})
    with pytest.raises(SettingsError, match=r"^rmi\.toml: host: nobody can connect to 0\.0\.0\.0"):
        load_settings(toml('host = "0.0.0.0"\ninsecure = true'), env={})
