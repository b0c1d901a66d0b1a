"""Settings come from the environment, say what they mean, and never change."""

import pytest
from pydantic import ValidationError

from gateway.settings import Settings, TemperaturePolicy


def test_every_field_is_described() -> None:
    """The description is a setting's documentation, so each field has one that is a sentence."""
    undocumented = [
        name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")
    ]

    assert undocumented == []


def test_environment_variables_carry_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """COE_PORT sets the port, PORT does not."""
    monkeypatch.setenv("COE_PORT", "9001")
    monkeypatch.setenv("COE_TEMPERATURE_POLICY", "clamp")
    monkeypatch.setenv("HOST", "203.0.113.1")

    settings = Settings()

    assert (settings.port, settings.host) == (9001, "127.0.0.1")
    assert settings.temperature_policy is TemperaturePolicy.CLAMP


def test_a_type_of_cache_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of the setting, and with the types that there are."""
    monkeypatch.setenv("COE_CACHE_TYPE", "q5_1")

    with pytest.raises(ValidationError, match=r"cache_type\n.*'f16', 'q8_0' or 'q4_0'"):
        Settings()


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given on the command line is what counts."""
    monkeypatch.setenv("COE_PORT", "9001")

    assert Settings(port=9002).port == 9002


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """`COE_API_KEY=` means unset, rather than a key that `Bearer ` would match."""
    monkeypatch.setenv("COE_API_KEY", "")

    assert Settings().api_key is None


def test_the_key_never_shows() -> None:
    """Printing the settings keeps the secret."""
    assert "hunter2" not in repr(Settings(api_key="hunter2"))


def test_settings_are_frozen() -> None:
    """Nobody changes a setting after the start."""
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 70000), ("keepalive_seconds", 0), ("max_queue", 0), ("temperature_policy", "maybe"), ("threads", 0)],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    """A wrong setting stops the start and says which one it is."""
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type]
