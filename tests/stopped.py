"""Plans whose commands are hard to stop, each of another kind; their processes carry a mark."""

from pathlib import Path

from running import MARK, program

from cloudops_prefect import ExecCommand, ExecutionPlan, ExecutionRequest, ParallelStrategy

SLEEPS = ["bash", "-c", "echo ready; exec sleep 60"]
ARGV = {
    "sleeps": SLEEPS,
    "background and foreground child": ["bash", "-c", "sleep 60 & echo ready; sleep 60; :"],
    "ignores sigterm": program("ignores_sigterm"),
    "double fork": program("double_fork"),
    "floods": program("floods"),
    "fifty in parallel": SLEEPS,
}


def plan_of(kind: str, mark: str, timeout_ms: int | None = None) -> ExecutionPlan:
    name, *args = ARGV[kind]
    command = ExecCommand(program=name, args=args)
    count = 50 if kind == "fifty in parallel" else 1
    return ExecutionPlan(
        strategy=ParallelStrategy(),
        commands=[
            ExecutionRequest(command=command, env={MARK: mark}, timeout_ms=timeout_ms)
            for _ in range(count)
        ],
    )


def count_ready(log_dir: Path) -> int:
    """How many commands have said that they are ready."""
    return sum(path.open("rb").read(6) == b"ready\n" for path in log_dir.glob("*.log"))
