"""What the system passes to a program, and what is said of what it can't."""

import json
import os
import resource
import subprocess
import sys
from uuid import uuid4

import pytest

from cloudops_prefect.argument_limits import MAX_STRING_BYTES, USUAL_TOTAL_BYTES, size_complaint
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import InvalidCommandError
from cloudops_prefect.execution import CommandExecution, check_paths
from cloudops_prefect.models import AwsCliCommand, ExecCommand, ExecutionRequest, ShellCommand
from cloudops_prefect.planfile import parse_plan

pytestmark = pytest.mark.anyio

LONGEST = "x" * MAX_STRING_BYTES
EVEN_LONGER = "x" * (MAX_STRING_BYTES + 1)
VARIABLES = dict.fromkeys("abcdefghijklmnopq", LONGEST[2:])
TOO_LONG = f"has {MAX_STRING_BYTES + 1} bytes, but Linux passes at most {MAX_STRING_BYTES}"
linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems limit the total alone")


def exec_(*args, **fields):
    return ExecutionRequest(command=ExecCommand(program="true", args=list(args)), **fields)


async def ran(request, tmp_path):
    execution = CommandExecution(request, uuid4(), ExecutionConfig(log_dir=tmp_path / "logs"))
    return await execution.run()


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (exec_("a", EVEN_LONGER), rf"args\[1\] {TOO_LONG}; put it into a file and pass its name"),
        (exec_("a", "\N{EURO SIGN}" * 50_000), r"args\[1\] has 150000 bytes"),
        (exec_(env={"A": EVEN_LONGER[2:]}), rf"env\[A\] {TOO_LONG}; put it into a file"),
        (
            ExecutionRequest(
                command=AwsCliCommand(service="s3", operation="ls", args=[EVEN_LONGER])
            ),
            rf"args\[0\] {TOO_LONG}; write it to a file and pass `file://PATH`",
        ),
        (
            ExecutionRequest(command=ShellCommand(command=EVEN_LONGER, shell="pwsh")),
            rf"command {TOO_LONG}; `pwsh` can read it from a script file",
        ),
        (
            exec_(*[LONGEST] * 16, env={"A": "x"}),
            f"arguments and environment have 2097292 bytes together, .* {USUAL_TOTAL_BYTES}; put",
        ),
    ],
)
def test_what_no_linux_passes_is_refused_with_the_limit_and_the_way_out(request_, says):
    with pytest.raises(InvalidCommandError, match=f"^Invalid command format: {says}"):
        request_.validate()


@pytest.mark.parametrize(
    ("entry", "place", "field"),
    [
        ({"exec": ["true", EVEN_LONGER]}, "1:24", "commands[0].exec"),
        ({"run": "true", "env": {"A": EVEN_LONGER}}, "1:44", "commands[0].env.A"),
        ({"run": EVEN_LONGER, "shell": "nu"}, "1:23", "commands[0].run"),
        ({"exec": ["true", *[LONGEST] * 17]}, "1:24", "commands[0].exec"),
        (
            {"run": "true", "env": VARIABLES},
            "1:38",
            "[0].env",
        ),
    ],
)
def test_a_plan_file_is_refused_with_line_and_column(entry, place, field):
    with pytest.raises(InvalidCommandError, match="bytes") as refusal:
        parse_plan(json.dumps({"commands": [entry]}), "p.json")
    (mistake,) = refusal.value.mistakes
    assert f"{mistake.line}:{mistake.column}" == place
    assert mistake.field.endswith(field)
    assert len(str(mistake)) < 300


@linux
async def test_the_longest_of_everything_is_passed(tmp_path):
    request = exec_(LONGEST, env={"A": LONGEST[2:]})
    request.validate()
    check_paths(request)
    assert (await ran(request, tmp_path)).status == "completed"


@linux
async def test_what_this_machine_cant_pass_is_refused_before_anything_starts(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    request = exec_(*["x" * 100_000] * 2)
    request.validate()
    resource.setrlimit(resource.RLIMIT_STACK, (600_000, hard))
    try:
        with pytest.raises(InvalidCommandError, match="together, but the system passes at most 14"):
            check_paths(request)
        result = await ran(request, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    assert (result.status, result.exit_code) == ("failed", -1)
    assert "put the longest into a file" in result.error


@linux
@pytest.mark.parametrize("stack", [600_000, 4_000_000, 8_388_608, resource.RLIM_INFINITY])
def test_what_is_called_possible_is_what_the_kernel_takes(stack):
    """Our limit keeps some bytes for the mark of our processes, and is else that of the kernel."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard != resource.RLIM_INFINITY and stack > hard:
        stack = hard
    code = (
        "import os, resource, sys\n"
        "from cloudops_prefect.argument_limits import max_total_bytes, size_complaint\n"
        f"resource.setrlimit(resource.RLIMIT_STACK, ({stack}, {hard}))\n"
        "def passes(total):\n"
        "    argv = ['/bin/true']\n"
        "    while total > 0:\n"
        "        argv.append('x' * min(max(total - 9, 0), 131_000)); total -= len(argv[-1]) + 9\n"
        "    if size_complaint(argv, {}) is None: print('called possible', end=' ')\n"
        "    try: return os.posix_spawn('/bin/true', argv, {})\n"
        "    except OSError as error: print(error.strerror)\n"
        "print(passes(max_total_bytes() - 100) is not None)\n"
        "print(passes(max_total_bytes() + 16_384) is not None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "called possible True",
        "Argument list too long",
        "False",
    ], done.stderr


def test_a_value_is_never_quoted():
    complaint = size_complaint(["true"], {**os.environ, "TOKEN": "s3cret" * 30_000})
    assert complaint is not None
    assert "env[TOKEN] has 180006 bytes" in complaint
    assert "s3cret" not in complaint
