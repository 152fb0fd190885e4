"""Hypothesis strategies for requests and plans: any that the types allow, sensible or not."""

from pathlib import Path

from hypothesis import strategies as st

from cloudops_prefect.models import (
    AwsCliCommand,
    DependencyGraphStrategy,
    ExecCommand,
    ExecutionMetadata,
    ExecutionPlan,
    ExecutionRequest,
    ParallelStrategy,
    ScriptCommand,
    SerialStrategy,
    ShellCommand,
)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
commands = st.one_of(
    st.builds(
        ScriptCommand,
        path=words.map(Path),
        args=st.lists(texts, max_size=3),
        interpreter=st.none() | texts,
    ),
    st.builds(ExecCommand, program=texts, args=st.lists(texts, max_size=3)),
    st.builds(ShellCommand, command=texts, shell=texts),
    st.builds(
        AwsCliCommand,
        service=texts,
        operation=texts,
        args=st.lists(texts, max_size=3),
        profile=st.none() | texts,
        region=st.none() | texts,
    ),
)
requests = st.builds(
    ExecutionRequest,
    id=st.uuids(),
    name=st.none() | texts,
    command=commands,
    env=st.dictionaries(texts, texts, max_size=3),
    env_from=st.lists(texts, max_size=2),
    working_dir=st.none() | words.map(Path),
    timeout_ms=st.none() | st.integers(-(2**31), 2**53),
    keep_background=st.booleans(),
    output_log_path=st.none() | words.map(Path),
    metadata=st.builds(
        ExecutionMetadata,
        source=st.none() | texts,
        conversation_id=st.none() | texts,
        tags=st.dictionaries(texts, texts, max_size=2),
    ),
)
strategies = st.one_of(
    st.builds(SerialStrategy, stop_on_error=st.booleans()),
    st.builds(ParallelStrategy, max_concurrency=st.none() | st.integers(-5, 100)),
    st.builds(
        DependencyGraphStrategy,
        dependencies=st.dictionaries(
            st.integers(-3, 20), st.lists(st.integers(-3, 20), max_size=4), max_size=5
        ),
    ),
)
plans = st.builds(
    ExecutionPlan,
    id=st.uuids(),
    description=texts,
    strategy=strategies,
    commands=st.lists(requests, max_size=4),
    env_from=st.lists(texts, max_size=2),
)
