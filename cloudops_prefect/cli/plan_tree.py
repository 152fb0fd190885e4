"""A plan as a tree in the terminal.

Each command is there once, below the last of those it waits for. A command that alone follows
another one stands below it without another step to the right, so that a long plan stays narrow.
"""

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from cloudops_prefect.cli.picture import Picture

_NAMED = 3
_PATH = 8
SIGNS = {
    "": "",
    "completed": "✓",
    "failed": "✗",
    "timeout": "✗",
    "cancelled": "-",
    "running": "▶",
    "pending": "·",
}


def print_tree(picture: "Picture") -> None:
    """Prints the tree, and what the critical path was."""
    console = printing.console()
    tree = tree_of(picture, plain=not console.encoding.startswith("utf"))
    console.print(tree, no_wrap=True, overflow="ellipsis")
    if path := picture.critical_path:
        durations = [picture.duration(index) or timedelta() for index in path]
        took = printing.seconds(sum(durations, timedelta()))
        names = " -> ".join(picture.names[index] for index in path)
        shown = names if len(path) <= _PATH else f"{len(path)} commands"
        printing.line(f"* critical path, {took}: {shown}")


def tree_of(picture: "Picture", *, plain: bool = False) -> "Tree":
    """Returns the tree for rich to print; `plain` for terminals that have only ASCII."""
    from rich.text import Text
    from rich.tree import Tree

    children = _children(picture)
    heading = Text.assemble((picture.title, "bold"), (f"  {picture.subtitle}", "dim"))
    root = Tree(heading, guide_style="dim")
    waiting = [(root, index) for index in reversed(children[None])]
    while waiting:
        parent, index = waiting.pop()
        label = _label(picture, index, plain=plain)
        while len(children[index]) == 1:
            (index,) = children[index]
            label.append("\nthen " if plain else "\n↓ ", style="dim").append_text(
                _label(picture, index, plain=plain)
            )
        branch = parent.add(label)
        waiting += [(branch, child) for child in reversed(children[index])]
    return root


def _children(picture: "Picture") -> dict[int | None, list[int]]:
    children: dict[int | None, list[int]] = defaultdict(list)
    for index in picture.order:
        children[_parent(picture, index)].append(index)
    return children


def _parent(picture: "Picture", index: int) -> int | None:
    before = picture.graph.predecessors(index)
    return max(before, key=lambda other: (picture.layers[other], other), default=None)


def _label(picture: "Picture", index: int, *, plain: bool) -> "Text":
    from rich.text import Text

    status = picture.status(index)
    style = printing.colour(status)
    sign = status if plain else SIGNS[status]
    label = Text().append(f"{sign} {picture.names[index]}".strip(), style=style)
    if (duration := picture.duration(index)) is not None:
        label.append(f"  {printing.seconds(duration)}", style="dim")
    if index in picture.critical_path:
        label.append(" *", style="bold")
    if others := _others(picture, index):
        label.append(f"  (also after {others})", style="dim")
    return label


def _others(picture: "Picture", index: int) -> str:
    parent = _parent(picture, index)
    others = sorted(other for other in picture.graph.predecessors(index) if other != parent)
    if len(others) > _NAMED:
        return f"{len(others)} others"
    return ", ".join(picture.names[other] for other in others)
