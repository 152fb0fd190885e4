import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from documents import steps

import cloudops_prefect

ROOT = Path(__file__).parents[1]


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def seen_by_type_checkers():
    tree = ast.parse(Path(cloudops_prefect.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in imports for alias in node.names}


def test_type_checkers_see_what_is_exported():
    seen = seen_by_type_checkers()
    assert {*seen, "__version__"} == set(cloudops_prefect.__all__)
    assert len(set(cloudops_prefect.__all__)) == len(cloudops_prefect.__all__)


TYPED = """
from typing import assert_type
from uuid import UUID
from cloudops_prefect import (
    ExecutionEngine,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionResult,
    PlanExecutionResult,
    compile_plan,
)

async def run(engine: ExecutionEngine, request: ExecutionRequest, plan: ExecutionPlan) -> None:
    _ = assert_type(await compile_plan(plan)(), PlanExecutionResult)
    of_command = await engine.execute(request)
    _ = assert_type(await engine.wait(of_command), ExecutionResult)
    _ = assert_type(await engine.wait(await engine.resume(of_command)), ExecutionResult)
    of_plan = await engine.execute_plan(plan)
    _ = assert_type(await engine.wait(of_plan, timeout=60), PlanExecutionResult)
    _ = assert_type(await engine.wait(await engine.resume(of_plan)), PlanExecutionResult)
    known: UUID = of_plan
    for other in (known, str(known), plan.id, await engine.resume(known)):
        _ = assert_type(await engine.wait(other), ExecutionResult | PlanExecutionResult)
"""


CHECKERS = {
    # It reads all of Prefect for a minute the first time.
    "mypy": ["--strict", "--cache-dir", str(ROOT / ".pytest_cache/mypy")],
    "basedpyright": ["--pythonpath", sys.executable],
}


@pytest.fixture(params=CHECKERS)
def check_types(request, tmp_path):
    def check(program: str) -> None:
        (tmp_path / "program.py").write_text(program)
        checker = Path(sys.executable).with_name(request.param)
        argv = [checker, *CHECKERS[request.param], "program.py"]
        checked = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout

    return check


@pytest.mark.slow
def test_type_checkers_know_what_is_returned(check_types):
    check_types(TYPED)


@pytest.mark.slow
def test_type_checkers_pass_the_readmes_example(check_types):
    (example,) = [
        step.block.text for step in steps(ROOT / "README.md") if step.block.language == "python"
    ]
    check_types(example)


@pytest.mark.parametrize(("name", "module"), seen_by_type_checkers().items())
def test_a_name_is_what_its_module_has(name, module):
    exported = getattr(cloudops_prefect, name)
    assert exported is getattr(sys.modules[module], name)
    assert name in dir(cloudops_prefect)


def test_the_version_is_the_installed_one():
    assert cloudops_prefect.__version__ == version("cloudops-prefect")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'ExecutionEngin'"):
        _ = cloudops_prefect.ExecutionEngin


def test_the_package_alone_costs_no_import():
    done = run(
        "import sys, cloudops_prefect\n"
        "print(sorted({'pydantic', 'yaml', 'prefect', 'importlib.metadata'} & set(sys.modules)))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_models_errors_and_configuration_dont_import_prefect():
    done = run(
        "import sys\n"
        "from cloudops_prefect import ExecutionConfig, ExecutionPlan, InvalidPlanError, load_plan\n"
        "print(sorted({'prefect', 'networkx'} & set(sys.modules)))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_what_runs_a_plan_in_a_terminal_does_not_import_networkx():
    done = run(
        "import sys\n"
        "from cloudops_prefect import ExecutionPlan, ExecutionRequest, ShellCommand, compile_plan\n"
        "from cloudops_prefect.cli import live_state, running\n"
        "command = ExecutionRequest(command=ShellCommand(command='true'))\n"
        "plan = ExecutionPlan(commands=[command])\n"
        "compile_plan(plan)\n"
        "live_state.RunState(plan, ['it'])\n"
        "print('networkx' in sys.modules)"
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_windows_is_refused_with_a_clear_error():
    done = run("import sys; sys.platform = 'win32'; import cloudops_prefect")
    assert done.returncode == 1
    assert "ImportError: cloudops_prefect needs Linux or macOS" in done.stderr
