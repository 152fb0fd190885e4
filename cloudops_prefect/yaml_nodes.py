"""YAML as a tree of nodes."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from cloudops_prefect.nodes import (
    MAX_DEPTH,
    Listing,
    Mapping,
    Node,
    RepeatedNameError,
    Scalar,
    TextError,
    Tree,
)
from cloudops_prefect.syntax_hints import NO_ALIAS, NO_TAG, bracket_hint, syntax_hint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NESTED_TOO_DEEPLY = "exceeded maximum nesting depth"
_TAG = "tag:yaml.org,2002:"
_READ = SafeConstructor()
_RESOLVER: Any = Resolver()
_MEANINGS: dict[str, Callable[[yaml.ScalarNode], object]] = {
    f"{_TAG}int": _READ.construct_yaml_int,
    f"{_TAG}float": _READ.construct_yaml_float,
    f"{_TAG}bool": _READ.construct_yaml_bool,
    f"{_TAG}null": lambda _: None,
}
_COLLECTION_TAGS = frozenset({None, f"{_TAG}map", f"{_TAG}seq"})


def compose_yaml(text: str) -> Tree:
    """Return a YAML text as a tree.

    Raises:
        TextError: The text isn't one YAML document, or there is a tag of another type than text,
            numbers, truth values, lists and mappings.
    """
    try:
        return _compose(text)
    except _CollectionKeyError as error:
        hint = bracket_hint(text, error.offset)
        offset = error.offset - 1 if hint else error.offset
        raise TextError(offset, error.message, hint) from None
    except yaml.MarkedYAMLError as error:
        raise _text_error(error, text) from None
    except yaml.reader.ReaderError as error:
        raise TextError(error.position, f"not YAML: {error.reason}") from None


def _events(text: str) -> Iterator[yaml.Event]:
    emitted = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            yield event
            emitted += 1
    except yaml.MarkedYAMLError as error:
        if _NESTED_TOO_DEEPLY not in str(error.problem):
            raise
        # libyaml scans ahead of the events that it emits, and refuses 1,000 levels before it has
        # emitted those up to our own limit. The parser written in Python emits them.
        yield from islice(yaml.parse(text, Loader=yaml.SafeLoader), emitted, None)


def _compose(text: str) -> Tree:
    composer = _Composer()
    repeated: list[RepeatedNameError] = []
    for event in _events(text):
        try:
            composer.take(event)
        except RepeatedNameError as error:
            repeated.append(error)
    return Tree(composer.root, repeated)


class _Composer:
    """Builds the tree from the parser's events, without recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[_OpenCollection] = []
        self._anchors: dict[str, Node] = {}

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._add(_scalar(event), event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._begin(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            collection = self._open.pop()
            collection.close()
            self._place(collection.node)
        elif isinstance(event, yaml.AliasEvent):
            self._place(self._aliased(event))
        elif isinstance(event, yaml.DocumentStartEvent) and self.root:
            raise TextError(_offset(event), "a second YAML document begins here")

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        offset = _offset(event)
        if event.tag not in _COLLECTION_TAGS:
            raise _unknown_tag(event)
        if len(self._open) >= MAX_DEPTH:
            raise TextError(offset, "nested too deeply")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        node = Mapping(offset) if is_mapping else Listing(offset)
        self._open.append(_OpenCollection(node))
        if event.anchor:
            self._anchors[event.anchor] = node

    def _add(self, node: Scalar, event: yaml.ScalarEvent) -> None:
        if event.anchor:
            self._anchors[event.anchor] = node
        self._place(node)

    def _place(self, node: Node) -> None:
        if self._open:
            self._open[-1].add(node)
        else:
            self.root = node

    def _aliased(self, event: yaml.AliasEvent) -> Node:
        offset = _offset(event)
        node = self._anchors.get(event.anchor or "")
        if node is None:
            raise TextError(offset, f"there is no anchor `&{event.anchor}` above", NO_ALIAS)
        if any(collection.node is node for collection in self._open):
            raise TextError(offset, f"`*{event.anchor}` contains itself")
        return node


class _CollectionKeyError(TextError):
    """A list or an object stands where a name belongs."""


class _MergeKey(Scalar):
    """A plain `<<`, which as a name stands for the entries of other mappings."""


class _OpenCollection:
    """A list or mapping whose end hasn't come yet."""

    def __init__(self, node: Listing | Mapping) -> None:
        self.node = node
        self._key: Scalar | None = None
        self._merged: list[Mapping] = []

    def add(self, node: Node) -> None:
        if isinstance(self.node, Listing):
            self.node.add(node)
        elif self._key is None:
            if not isinstance(node, Scalar):
                raise _CollectionKeyError(node.offset, "a list or an object can't be a name")
            self._key = node
        else:
            key, self._key = self._key, None
            if isinstance(key, _MergeKey):
                self._merged.extend(_mappings_in(node))
            else:
                self.node.add(key.offset, key.text, node)

    def close(self) -> None:
        if isinstance(self.node, Mapping):
            for mapping in self._merged:
                self.node.merge(mapping)


def _offset(event: yaml.Event) -> int:
    return event.start_mark.index if event.start_mark else 0


def _mappings_in(node: Node) -> list[Mapping]:
    nodes = node.items if isinstance(node, Listing) else [node]
    mappings = [mapping for mapping in nodes if isinstance(mapping, Mapping)]
    if len(mappings) != len(nodes):
        raise TextError(node.offset, "`<<` takes an object or a list of objects, like `*defaults`")
    return mappings


@lru_cache(maxsize=1024)
def _tag_of(text: str) -> str:
    return _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    offset, text = _offset(event), event.value
    plain, _ = event.implicit
    tag = event.tag
    if tag == "!":
        # In `run: ! grep x` it is the shell's, and YAML would drop it.
        raise _unknown_tag(event)
    if plain:
        tag = _tag_of(text)
        if tag == f"{_TAG}merge":
            return _MergeKey(offset, text, text)
    elif tag not in _MEANINGS and tag not in {None, f"{_TAG}str"}:
        raise _unknown_tag(event)
    return Scalar(offset, text, _meaning(tag, text))


def _meaning(tag: str | None, text: str) -> object:
    if tag is None:
        return text
    read = _MEANINGS.get(tag)
    if read is None:
        return text
    try:
        return read(yaml.ScalarNode(tag, text))
    except (ValueError, KeyError):
        return text


def _unknown_tag(event: yaml.NodeEvent) -> TextError:
    tag = str(getattr(event, "tag", "")).replace(_TAG, "!!")
    hint = None if tag.startswith("!!") else NO_TAG
    return TextError(_offset(event), f"the YAML tag `{tag}` means nothing here", hint)


def _text_error(error: yaml.MarkedYAMLError, text: str) -> TextError:
    mark, begun_at = error.problem_mark or error.context_mark, error.context_mark
    if begun_at and re.search("scanning an? (alias|anchor|tag)", error.context or ""):
        # The parser stops behind the sign that the text begins with.
        mark = begun_at
    offset = mark.index if mark else 0
    parts = [part for part in (error.context, error.problem) if part]
    hint = syntax_hint(text, offset, error.problem or "", begun_at and begun_at.index)
    return TextError(offset, f"not YAML: {', '.join(parts)}", hint)
