import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cloudops_prefect.commands import Invocation, check_working_dir, complete_env, invocation
from cloudops_prefect.errors import (
    InvalidCommandError,
    InvalidWorkingDirError,
    ScriptNotFoundError,
    SpawnFailedError,
)
from cloudops_prefect.models import AwsCliCommand, ExecCommand, ScriptCommand, ShellCommand


def script(directory: Path, name: str, content: str = "") -> Path:
    path = directory / name
    path.write_text(content)
    return path


class TestExec:
    def test_arguments_stay_what_they_are(self):
        command = ExecCommand(program="echo", args=["a b", "$HOME", "", "--x='y'"])
        assert invocation(command, {}).argv == ("echo", "a b", "$HOME", "", "--x='y'")

    def test_nothing_is_added_to_the_environment(self):
        assert invocation(ExecCommand(program="true"), {}).env == {}


class TestShell:
    def test_the_command_is_one_argument_of_the_shell(self):
        command = ShellCommand(command="echo $((1 + 1)); exit 3", shell="sh")
        assert invocation(command, {}).argv == ("sh", "-c", "echo $((1 + 1)); exit 3")

    def test_the_shell_is_bash_unless_told(self):
        assert invocation(ShellCommand(command="true"), {}).argv[0] == "bash"


class TestScript:
    @pytest.mark.parametrize(
        ("first_line", "interpreter"),
        [
            ("#!/bin/sh", ("/bin/sh",)),
            ("#!/bin/sh -e", ("/bin/sh", "-e")),
            ("#! /bin/sh\t-e  ", ("/bin/sh", "-e")),
            ("#!/usr/bin/env python3", ("/usr/bin/env", "python3")),
            ("#!/usr/bin/env -S python3 -u", ("/usr/bin/env", "-S python3 -u")),
            ("#!/bin/bash\r", ("/bin/bash",)),
            ("#!", ("perl",)),
            ("# no shebang", ("perl",)),
            (" #!/bin/sh", ("perl",)),
            ("", ("perl",)),
        ],
    )
    def test_a_shebang_decides_before_the_extension(self, tmp_path, first_line, interpreter):
        path = script(tmp_path, "script.pl", first_line + "\nexit\n")
        assert invocation(ScriptCommand(path=path), {}).argv == (*interpreter, str(path))

    @pytest.mark.parametrize(
        ("name", "interpreter"),
        [
            ("a.sh", "bash"),
            ("a.bash", "bash"),
            ("a.zsh", "zsh"),
            ("a.py", "python3"),
            ("a.PY", "python3"),
            ("a.pl", "perl"),
            ("a.rb", "ruby"),
            ("a.js", "node"),
            ("a", "bash"),
            ("a.unknown", "bash"),
            ("a.tar.sh", "bash"),
        ],
    )
    def test_the_extension_decides_where_there_is_no_shebang(self, tmp_path, name, interpreter):
        path = script(tmp_path, name, "true\n")
        assert invocation(ScriptCommand(path=path), {}).argv == (interpreter, str(path))

    @pytest.mark.parametrize(
        ("interpreter", "argv"),
        [
            ("dash", ("dash",)),
            ("python3 -u", ("python3", "-u")),
            ("/opt/my\\ tools/x 'a b'", ("/opt/my tools/x", "a b")),
        ],
    )
    def test_an_interpreter_that_is_given_decides_before_all(self, tmp_path, interpreter, argv):
        path = script(tmp_path, "script.py", "#!/bin/sh\n")
        command = ScriptCommand(path=path, interpreter=interpreter)
        assert invocation(command, {}).argv == (*argv, str(path))

    def test_an_interpreter_whose_path_has_a_space_needs_no_quotes(self, tmp_path):
        interpreter = script(tmp_path, "my interpreter")
        path = script(tmp_path, "script")
        command = ScriptCommand(path=path, interpreter=str(interpreter))
        assert invocation(command, {}).argv == (str(interpreter), str(path))

    def test_a_relative_interpreter_starts_at_the_working_directory(self, tmp_path):
        script(tmp_path, "my interpreter")
        command = ScriptCommand(path=script(tmp_path, "a.py"), interpreter="./my interpreter")
        argv = invocation(command, {}, working_dir=tmp_path).argv
        assert argv == ("./my interpreter", str(command.path))

    def test_an_interpreter_with_an_open_quote_is_refused(self, tmp_path):
        command = ScriptCommand(path=script(tmp_path, "a"), interpreter="python3 'a")
        with pytest.raises(InvalidCommandError, match="No closing quotation"):
            invocation(command, {})

    def test_a_relative_path_starts_at_the_working_directory(self, tmp_path, monkeypatch):
        path = script(tmp_path, "-x.sh")
        argv = invocation(ScriptCommand(path=Path("-x.sh")), {}, working_dir=tmp_path).argv
        assert argv == ("bash", str(path))
        monkeypatch.chdir(tmp_path)
        assert invocation(ScriptCommand(path=Path("-x.sh")), {}).argv == ("bash", str(path))

    @pytest.mark.parametrize("missing", ["missing.sh", "."])
    def test_what_is_missing_or_no_file_is_not_found(self, tmp_path, missing):
        with pytest.raises(ScriptNotFoundError, match="Script file not found: "):
            invocation(ScriptCommand(path=tmp_path / missing), {})

    def test_what_cannot_be_read_cannot_be_started(self, directory_of_nobody):
        path = script(directory_of_nobody, "a.sh")
        path.chmod(0)
        with pytest.raises(SpawnFailedError, match=r"a\.sh: Permission denied"):
            invocation(ScriptCommand(path=path), {})

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a", "#!/usr/bin/env -S sh -e\nfalse; echo no"),
            ("a.py", "#!/usr/bin/env python3\nimport sys; print('x'); sys.exit(1)"),
            ("a.sh", "echo x; exit 1"),
            ("a b's $HOME", "echo x; exit 1"),
        ],
    )
    def test_it_runs_though_it_is_not_executable(self, tmp_path, name, content):
        path = script(tmp_path, name, content)
        done = subprocess.run(invocation(ScriptCommand(path=path), {}).argv, check=False)
        assert done.returncode == 1

    def test_it_gets_its_arguments_as_they_are(self, tmp_path):
        path = script(tmp_path, "a.sh", 'printf "[%s]" "$@"')
        command = ScriptCommand(path=path, args=["--flag", "a b", "$HOME", "", "*"])
        argv = invocation(command, {}).argv
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert done.stdout == "[--flag][a b][$HOME][][*]"

    def test_a_path_that_was_split_at_its_spaces_is_found_for_the_hint(self, tmp_path):
        whole = script(tmp_path, "a b c.sh")
        command = ScriptCommand(path=tmp_path / "a", args=["b", "c.sh", "--flag"])
        with pytest.raises(ScriptNotFoundError) as refusal:
            invocation(command, {})
        assert str(refusal.value) == (
            f"Script file not found: {tmp_path / 'a'}; there is {whole}: "
            'write spaces in a list, like `script: ["a b c.sh"]`'
        )
        assert refusal.value.path == str(tmp_path / "a")

    def test_a_line_of_a_shell_is_no_script(self, tmp_path):
        with pytest.raises(ScriptNotFoundError, match=r"; a line of a shell goes below `run: \|`$"):
            invocation(ScriptCommand(path=tmp_path / "make test"), {})


def aws(request_env=None, **fields):
    return invocation(AwsCliCommand(service="s3", operation="ls", **fields), request_env or {})


class TestAwsCli:
    def test_service_operation_and_arguments_in_this_order(self):
        assert aws(args=["s3://bucket", "--recursive"]).argv[1:] == (
            "s3",
            "ls",
            "s3://bucket",
            "--recursive",
        )

    def test_profile_and_region_have_the_names_of_both_versions(self):
        env = aws(profile="prod", region="eu-central-1").env
        assert env["AWS_PROFILE"] == env["AWS_DEFAULT_PROFILE"] == "prod"
        assert env["AWS_REGION"] == env["AWS_DEFAULT_REGION"] == "eu-central-1"

    def test_nothing_is_said_of_a_profile_and_region_that_are_not_given(self):
        assert set(aws().env) == {"AWS_OUTPUT", "AWS_DEFAULT_OUTPUT", "AWS_PAGER"}

    @pytest.mark.parametrize("args", [["--output", "text"], ["--output=text"]])
    def test_an_output_argument_decides_alone(self, args):
        assert set(aws(args=args).env) == {"AWS_PAGER"}

    def test_output_is_json_and_never_paged(self):
        env = aws({"AWS_PAGER": "less"}).env
        assert (env["AWS_OUTPUT"], env["AWS_DEFAULT_OUTPUT"]) == ("json", "json")
        assert env["AWS_PAGER"] == ""

    @pytest.mark.parametrize(
        ("request_env", "expected"),
        [
            ({"AWS_OUTPUT": "text"}, {"AWS_OUTPUT": "text", "AWS_DEFAULT_OUTPUT": "text"}),
            ({"AWS_DEFAULT_OUTPUT": "text"}, {"AWS_OUTPUT": "text", "AWS_DEFAULT_OUTPUT": "text"}),
            ({"AWS_REGION": "x"}, {"AWS_REGION": "x", "AWS_DEFAULT_REGION": "x"}),
            (
                {"AWS_REGION": "x", "AWS_DEFAULT_REGION": "y"},
                {"AWS_REGION": "x", "AWS_DEFAULT_REGION": "y"},
            ),
            ({"AWS_PROFILE": "x"}, {"AWS_PROFILE": "x", "AWS_DEFAULT_PROFILE": "x"}),
        ],
    )
    def test_the_requests_environment_wins(self, request_env, expected):
        call = aws(request_env, region="eu-central-1", profile="prod")
        assert complete_env(call, request_env, base={}).items() >= expected.items()

    def test_the_aws_cli_beside_our_interpreter_is_found(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        assert aws({"PATH": "/nowhere"}).argv[0] == "aws"
        script(tmp_path, "aws")
        assert aws({"PATH": "/nowhere"}).argv[0] == str(tmp_path / "aws")

    def test_the_aws_cli_in_path_comes_first(self, tmp_path, monkeypatch):
        script(tmp_path, "aws").chmod(0o755)
        assert aws({"PATH": str(tmp_path)}).argv[0] == "aws"


class TestEnvironment:
    def test_the_requests_is_added_and_wins(self):
        call = invocation(ExecCommand(program="true"), {})
        env = complete_env(call, {"B": "2", "C": "2"}, base={"A": "1", "B": "1"})
        assert env == {"A": "1", "B": "2", "C": "2", "PWD": str(Path.cwd())}

    def test_it_starts_from_this_processs(self, monkeypatch):
        monkeypatch.setenv("CLOUDOPS_TEST", shlex.quote("a b"))
        assert complete_env(aws(), {})["CLOUDOPS_TEST"] == "'a b'"


def variables(working_dir: Path | None, request_env: dict[str, str] | None = None):
    """The variables of a command that name a directory."""
    env = complete_env(Invocation(("true",)), request_env or {}, working_dir)
    return {name: env[name] for name in ("PWD", "OLDPWD") if name in env}


class TestVariablesThatNameADirectory:
    @pytest.fixture(autouse=True)
    def caller(self, tmp_path, monkeypatch):
        """A caller whose shell came from another directory, by way of a symbolic link."""
        (tmp_path / "real" / "deep").mkdir(parents=True)
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "real" / "deep")
        monkeypatch.chdir(link)
        monkeypatch.setenv("PWD", str(link))
        monkeypatch.setenv("OLDPWD", str(tmp_path))
        return link

    def test_an_absolute_directory_is_the_commands(self):
        assert variables(Path("/usr")) == {"PWD": "/usr"}

    def test_a_relative_directory_starts_at_the_callers(self, caller):
        (caller / "sub").mkdir()
        assert variables(Path("./sub/")) == {"PWD": f"{caller}/sub"}

    def test_without_a_directory_it_is_the_callers_links_kept(self, caller):
        assert variables(None) == {"PWD": str(caller)}

    def test_a_stale_pwd_is_not_believed(self, caller, monkeypatch):
        monkeypatch.setenv("PWD", "/usr")
        assert variables(None) == {"PWD": str(caller.resolve())}

    def test_a_link_to_the_directory_stays_in_its_path(self, caller):
        assert variables(caller) == {"PWD": str(caller)}

    def test_the_parent_of_a_link_is_that_of_its_target(self, caller, tmp_path):
        assert variables(caller / "..") == {"PWD": str(tmp_path / "real")}

    def test_a_removed_directory_has_no_path(self, tmp_path, monkeypatch):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert variables(None) == {}
        assert variables(Path("/usr")) == {"PWD": "/usr"}

    def test_the_requests_environment_wins(self):
        given = {"PWD": "/a", "OLDPWD": "/b"}
        assert variables(Path("/usr"), given) == given


class TestWorkingDir:
    def test_a_directory_is_fine(self, tmp_path):
        check_working_dir(tmp_path)

    def test_what_is_missing_is_refused(self, tmp_path):
        with pytest.raises(InvalidWorkingDirError, match="missing does not exist"):
            check_working_dir(tmp_path / "missing")

    def test_a_file_is_refused(self, tmp_path):
        with pytest.raises(InvalidWorkingDirError, match="file is not a directory"):
            check_working_dir(script(tmp_path, "file"))
