import os
import tempfile
from pathlib import Path
from uuid import uuid4

import pydantic
import pytest

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import ValidationError

NUMBERS = [
    "default_timeout_ms",
    "max_timeout_ms",
    "max_concurrent_executions",
    "grace_period_ms",
    "max_output_bytes",
    "max_api_log_bytes",
]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in [*NUMBERS, "stream_output", "log_dir", "redact_env"]:
        monkeypatch.delenv(f"CLOUDOPS_{name.upper()}", raising=False)


def test_the_defaults_are_the_contracts():
    assert ExecutionConfig().model_dump() == {
        "default_timeout_ms": 120_000,
        "max_timeout_ms": 600_000,
        "stream_output": True,
        "log_dir": None,
        "max_concurrent_executions": 10,
        "grace_period_ms": 5_000,
        "max_output_bytes": 1_048_576,
        "max_api_log_bytes": 10_485_760,
        "redact_env": ("*SECRET*", "*TOKEN*", "*PASSWORD*", "*_KEY"),
    }


def test_the_environment_sets_fields_and_arguments_win(monkeypatch):
    monkeypatch.setenv("CLOUDOPS_DEFAULT_TIMEOUT_MS", "1000")
    monkeypatch.setenv("CLOUDOPS_STREAM_OUTPUT", "false")
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", "/var/log/cloudops")
    monkeypatch.setenv("CLOUDOPS_SOMETHING_ELSE", "ignored")
    config = ExecutionConfig(stream_output=True)
    assert (config.default_timeout_ms, config.stream_output) == (1000, True)
    assert config.log_dir == Path("/var/log/cloudops")


def test_an_empty_variable_is_no_setting(monkeypatch):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", "")
    monkeypatch.setenv("CLOUDOPS_MAX_TIMEOUT_MS", "")
    assert ExecutionConfig() == ExecutionConfig(log_dir=None, max_timeout_ms=600_000)


@pytest.mark.parametrize("text", ["*PIN*, X_* ,", '["*PIN*", "X_*"]'])
def test_patterns_come_from_the_environment_as_a_list_or_with_commas(monkeypatch, text):
    monkeypatch.setenv("CLOUDOPS_REDACT_ENV", text)
    assert ExecutionConfig().redact_env == ("*PIN*", "X_*")


@pytest.mark.parametrize("value", [0, -1, "soon"])
@pytest.mark.parametrize("field", NUMBERS)
def test_zero_negative_and_wrong_values_are_refused(field, value):
    with pytest.raises(pydantic.ValidationError, match=field):
        ExecutionConfig(**{field: value})


def test_a_default_above_the_maximum_is_refused():
    with pytest.raises(pydantic.ValidationError, match=r"default_timeout_ms \(120000\) is above"):
        ExecutionConfig(max_timeout_ms=119_999)
    assert ExecutionConfig(max_timeout_ms=120_000).max_timeout_ms == 120_000


def test_an_unknown_field_is_refused():
    with pytest.raises(pydantic.ValidationError):
        ExecutionConfig(max_timeout=1)


def test_it_is_frozen():
    with pytest.raises(pydantic.ValidationError):
        ExecutionConfig().max_timeout_ms = 5


def test_it_survives_json(monkeypatch):
    config = ExecutionConfig(log_dir=Path("/x"), max_concurrent_executions=3, redact_env=("A",))
    monkeypatch.setenv("CLOUDOPS_MAX_OUTPUT_BYTES", "7")
    assert ExecutionConfig.model_validate_json(config.model_dump_json()) == config


def test_load_names_the_variable_or_the_argument_in_one_line(monkeypatch):
    monkeypatch.setenv("CLOUDOPS_GRACE_PERIOD_MS", "soon")
    with pytest.raises(ValidationError) as refusal:
        ExecutionConfig.load(max_output_bytes=0)
    message = str(refusal.value)
    assert message.startswith("Validation error: ")
    assert "\n" not in message
    assert "CLOUDOPS_GRACE_PERIOD_MS: " in message
    assert "'soon'" in message
    assert " max_output_bytes: " in message


def test_load_tells_a_default_above_the_maximum():
    with pytest.raises(ValidationError, match=r"^Validation error: default_timeout_ms .* is above"):
        ExecutionConfig.load(max_timeout_ms=1)
    assert ExecutionConfig.load(max_output_bytes=5).max_output_bytes == 5


def test_bad_json_in_a_variable_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("CLOUDOPS_REDACT_ENV", "[broken")
    with pytest.raises(ValidationError, match="CLOUDOPS_REDACT_ENV"):
        ExecutionConfig.load()


def test_logs_are_in_the_systems_temporary_directory_unless_told(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    execution_id = uuid4()
    default = tmp_path / f"cloudops-executions-{os.geteuid()}"
    assert ExecutionConfig().resolved_log_dir == default
    assert ExecutionConfig().log_path(execution_id) == default / f"{execution_id}.log"
    assert not default.exists()


def test_a_log_directory_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert ExecutionConfig(log_dir=Path("logs")).resolved_log_dir == tmp_path / "logs"
    assert ExecutionConfig(log_dir=Path("~/logs")).resolved_log_dir == Path("/home/me/logs")


def test_a_log_directory_stays_when_the_process_goes_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = ExecutionConfig(log_dir=Path("logs"))
    monkeypatch.chdir("/")
    assert config.resolved_log_dir == config.log_dir == tmp_path / "logs"


def test_a_relative_log_directory_in_a_removed_directory_is_refused(monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", "logs")
    with pytest.raises(ValidationError, match=r"CLOUDOPS_LOG_DIR: no absolute path: .*No such"):
        ExecutionConfig.load()
