import copy
import pickle
from pathlib import Path
from uuid import UUID

import pytest

from cloudops_prefect import errors
from cloudops_prefect.errors import (
    CommandFailedError,
    ExecutionCancelledError,
    ExecutionError,
    ExecutionIOError,
    ExecutionNotCompletedError,
    ExecutionNotFoundError,
    ExecutionNotRunningError,
    ExecutionTimeoutError,
    InvalidCommandError,
    InvalidPlanError,
    InvalidWorkingDirError,
    MissingFieldError,
    ScriptNotFoundError,
    SerializationError,
    SpawnFailedError,
    TimeoutTooLargeError,
    ValidationError,
)
from cloudops_prefect.models import ExecutionResult, ExecutionStatus

ID = UUID("0190b1e0-0000-7000-8000-000000000001")
RESULT = ExecutionResult(id=ID, execution_id=ID, status=ExecutionStatus.FAILED, exit_code=3)

MESSAGES = [
    (ExecutionError("anything"), "anything"),
    (ValidationError("timeout"), "Validation error: timeout"),
    (InvalidCommandError("a NUL byte"), "Invalid command format: a NUL byte"),
    (ScriptNotFoundError("/a/b.sh"), "Script file not found: /a/b.sh"),
    (ScriptNotFoundError(Path("/a/b.sh")), "Script file not found: /a/b.sh"),
    (TimeoutTooLargeError(7, 5), "Timeout exceeds maximum allowed: 7ms > 5ms"),
    (InvalidWorkingDirError("/x"), "Invalid working directory: /x"),
    (InvalidWorkingDirError(Path("/x")), "Invalid working directory: /x"),
    (MissingFieldError("program"), "Missing required field: program"),
    (InvalidPlanError("no commands"), "Invalid execution plan: no commands"),
    (ExecutionNotFoundError(ID), f"Execution not found: {ID}"),
    (ExecutionNotFoundError("abc"), "Execution not found: abc"),
    (ExecutionTimeoutError(250, RESULT), "Execution timeout after 250ms"),
    (ExecutionCancelledError(), "Execution cancelled"),
    (ExecutionCancelledError("Ctrl-C", RESULT), "Execution cancelled: Ctrl-C"),
    (CommandFailedError(3, result=RESULT), "Command failed with exit code 3"),
    (CommandFailedError(-9, "SIGKILL"), "Command failed with exit code -9: SIGKILL"),
    (SpawnFailedError("no such file", RESULT), "Process spawn failed: no such file"),
    (ExecutionIOError("disk full"), "IO error: disk full"),
    (SerializationError("bad JSON"), "Serialization error: bad JSON"),
    (
        ExecutionNotCompletedError(ID, ExecutionStatus.RUNNING),
        f"Execution not completed: {ID} is running",
    ),
    (
        ExecutionNotRunningError(ID, ExecutionStatus.FAILED),
        f"Execution not running: {ID} is failed",
    ),
    (ExecutionNotCompletedError(ID), f"Execution not completed: {ID}"),
    (ExecutionNotRunningError(ID), f"Execution not running: {ID}"),
    (MissingFieldError("program").located("a:1:2"), "Missing required field: program (a:1:2)"),
]


@pytest.mark.parametrize(("error", "message"), MESSAGES)
def test_the_message_is_the_contracts(error, message):
    assert str(error) == message


@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
@pytest.mark.parametrize("error", [error for error, _ in MESSAGES])
def test_an_error_survives_pickling_with_all_it_knows(error, duplicate):
    error.add_note("seen in passing")
    again = duplicate(error)
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_a_class_derived_by_a_user_survives_pickling():
    again = pickle.loads(pickle.dumps(DerivedError(1, extra="x")))
    assert (type(again), str(again), again.extra) == (DerivedError, "derived 1", "x")


class DerivedError(ExecutionError):
    def __init__(self, number, *, extra):
        super().__init__(f"derived {number}")
        self.extra = extra


def test_every_error_of_the_module_has_its_message_tested():
    classes = {
        value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ExecutionError) and name[0] != "_"
    }
    assert classes == {type(error) for error, _ in MESSAGES}


@pytest.mark.parametrize(
    "cls",
    [
        InvalidCommandError,
        ScriptNotFoundError,
        TimeoutTooLargeError,
        InvalidWorkingDirError,
        MissingFieldError,
        InvalidPlanError,
    ],
)
def test_what_the_caller_got_wrong_is_a_validation_error(cls):
    assert issubclass(cls, ValidationError)


def test_a_timeout_is_the_built_in_one_too():
    with pytest.raises(TimeoutError):
        raise ExecutionTimeoutError(5)


def test_errors_of_an_ended_execution_have_a_result_if_one_is_known():
    assert pickle.loads(pickle.dumps(CommandFailedError(3, result=RESULT))).result == RESULT
    assert [e(1).result for e in (CommandFailedError, ExecutionTimeoutError)] == [None, None]
    assert [ExecutionCancelledError().result, SpawnFailedError("x").result] == [None, None]


def test_a_validation_error_knows_its_field_and_keeps_it_when_located():
    error = InvalidCommandError("bad", "args[1]").located("commands[0]")
    assert isinstance(error, InvalidCommandError)
    assert (error.field, error.detail) == ("args[1]", "bad")
    assert MissingFieldError("program").field == "program"
    located = TimeoutTooLargeError(7, 5).located("here")
    assert (located.timeout_ms, located.maximum_ms) == (7, 5)
