"""Reading a YAML file as plain data that knows on which line each field stands.

Scalars mean what PyYAML's safe loader says they mean, as they do for Azure's CLI; two details
differ: a timestamp stays the text that was written, and keys are always text. Everything that a
hostile or broken file could do is refused with one line: tags, duplicate keys, alias bombs, deep
nesting, very long numbers, a second document, other encodings. What the fields mean is not known
here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inferay.engine.resources.local_files import UnreadableFileError, read_regular_file
from inferay.engine.resources.wording import FieldPath, clipped, one_line, shown
from inferay.errors import InvalidInput

#: Bytes of one file: hundreds of times the largest deployment seen, small enough to parse at once.
FILE_BYTES_MAX = 1024 * 1024
#: Values in one document, aliases expanded: an alias bomb stops here, within about 20 MB.
NODES_MAX = 20_000
#: Levels of nesting, aliases expanded; also bounds our recursion.
DEPTH_MAX = 50
#: Characters of a number: PyYAML's base-60 integers take quadratic time to convert.
NUMBER_CHARS_MAX = 100

# libyaml is some twenty times faster; the pure Python loader reads the same language.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"
_TAGS = frozenset(
    f"{_PREFIX}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
)
_UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff", b"\x00")


@dataclass(frozen=True)
class YamlDocument:
    """One mapping read from YAML, with the place of every field.

    Attributes:
        name: The file as the user named it, for messages.
        data: Plain dicts, lists and scalars; nothing is shared between two places.
        positions: Line and column, from 1, of the key (or the list item) at a path.
        texts: What was written for each scalar that is not text or null: `1.10`, `yes`.
    """

    name: str
    data: dict[str, Any]
    positions: Mapping[FieldPath, tuple[int, int]] = field(repr=False)
    texts: Mapping[FieldPath, str] = field(repr=False)

    def line(self, path: FieldPath) -> int:
        """Return the line of the field, or of the nearest field around it; 1 for the document."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.positions:
                return self.positions[path[:length]][0]
        return 1


def read_yaml(path: Path) -> YamlDocument:
    """Return the one mapping in a YAML file; never hangs on a FIFO or a device.

    Raises:
        InvalidInput: The file can't be read, or is not one plain mapping; one line that names
            the file, where possible the line and column, and what was expected.
    """
    try:
        data = read_regular_file(path, FILE_BYTES_MAX)
    except UnreadableFileError as error:
        raise InvalidInput(one_line(f"{path}: {error}"), target=str(path)) from None
    return parse_yaml(data, str(path))


def parse_yaml(data: bytes | str, name: str) -> YamlDocument:
    """Return the one mapping in YAML text, as `read_yaml` does; `name` stands in messages."""
    text = _decode(data, name) if isinstance(data, bytes) else data
    try:
        _check_events(text, name)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, name) from None
    if node is None or _is_null(node):
        raise InvalidInput(f"{one_line(name)}: the file is empty; expected fields", target=name)
    if not isinstance(node, yaml.MappingNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else shown(node.value)
        raise _error(name, node.start_mark, f"expected fields such as 'name: …', got {found}")
    builder = _Builder(name)
    return YamlDocument(name, builder.value(node, (), 1), builder.positions, builder.texts)


def parse_yaml_value(text: str, name: str) -> tuple[Any, str | None]:
    """Return the value of a scalar or flow text such as `--set` takes, and its text if a scalar.

    Unquoted text is one plain scalar, whatever it holds: `a: b # c` stays as it is. Text that
    starts with a quote, `[` or `{` is parsed as YAML. Empty text is the empty string.

    Raises:
        InvalidInput: It is not valid YAML, or has a tag.
    """
    builder = _Builder(name)
    if text[:1] in ("'", '"', "[", "{"):
        try:
            _check_events(text, name)
            node = yaml.compose(text, Loader=_LOADER)
        except yaml.YAMLError as error:
            raise _syntax_error(error, text, name) from None
        return None if node is None else builder.value(node, (), 1), None
    if text.startswith("!"):
        raise InvalidInput(f"{one_line(name)}: tag not allowed: {clipped(text)}", target=name)
    if not text:
        return "", ""
    resolver: Any = yaml.resolver.Resolver()
    tag = resolver.resolve(yaml.ScalarNode, text, (True, False))
    return builder.value(yaml.ScalarNode(tag, text), (), 1), text


def _decode(data: bytes, name: str) -> str:
    if data.startswith(_UTF16_STARTS) or b"\x00" in data[:4]:
        raise InvalidInput(
            f"{one_line(name)}: expected UTF-8, got UTF-16 or binary data; save it as UTF-8",
            target=name,
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise InvalidInput(
            f"{one_line(name)}:{line}:{column}: expected UTF-8, got byte 0x{data[error.start]:02x}",
            target=name,
        ) from None


def _check_events(text: str, name: str) -> None:
    """Refuse what must not reach the composer, in one streaming pass with bounded memory."""
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _error(name, event.start_mark, "a second document; expected only one")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            _check_size(name, event.start_mark, nodes, depth)
            tag = getattr(event, "tag", None)
            if tag is not None and tag not in _TAGS:
                raise _error(
                    name, event.start_mark, f"tag not allowed: {_short_tag(tag)}; write plain YAML"
                )


def _check_size(name: str, mark: Any, nodes: int, depth: int) -> None:
    if nodes > NODES_MAX:
        raise _error(name, mark, f"more than {NODES_MAX} values (aliases expanded); expected fewer")
    if depth > DEPTH_MAX:
        raise _error(name, mark, f"nested deeper than {DEPTH_MAX} levels; expected fewer")


class _Builder:
    """Turns composed nodes into plain data, noting the place and text of each value."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes = 0
        self._constructor: Any = yaml.constructor.SafeConstructor()
        self.positions: dict[FieldPath, tuple[int, int]] = {}
        self.texts: dict[FieldPath, str] = {}

    def value(self, node: yaml.Node, path: FieldPath, depth: int) -> Any:
        self._nodes += 1
        _check_size(self._name, node.start_mark, self._nodes, depth)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                self._note((*path, index), child)
            return [
                self.value(child, (*path, index), depth + 1)
                for index, child in enumerate(node.value)
            ]
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.Node, path: FieldPath, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_PREFIX}merge":
                data.update(self._merged(value_node, path, depth))
        first: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_PREFIX}merge":
                continue
            key = self._key(key_node)
            if key in first:
                line = first[key].start_mark.line + 1
                raise _error(
                    self._name,
                    key_node.start_mark,
                    f"duplicate key '{clipped(key)}', first given on line {line}; expected it once",
                )
            first[key] = key_node
            self._note((*path, key), key_node)
            data[key] = self.value(value_node, (*path, key), depth + 1)
        return data

    def _merged(self, node: yaml.Node, path: FieldPath, depth: int) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        data: dict[str, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise _error(self._name, source.start_mark, "'<<' expected a mapping to merge")
            data.update(self.value(source, path, depth + 1))
        return data

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _error(self._name, node.start_mark, "expected text as a key, got a collection")
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: FieldPath) -> Any:
        text, kind = str(node.value), node.tag.removeprefix(_PREFIX)
        if kind == "null":
            return None
        if kind not in ("int", "float", "bool"):
            return text
        self.texts[path] = text
        if len(text) > NUMBER_CHARS_MAX:
            raise _error(
                self._name,
                node.start_mark,
                f"a number of more than {NUMBER_CHARS_MAX} characters; expected a shorter one",
            )
        try:
            value = getattr(self._constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError, OverflowError):  # an explicit !!int that is none
            raise _error(
                self._name, node.start_mark, f"expected {kind}, got {shown(text)}"
            ) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise _error(
                self._name, node.start_mark, f"expected a finite number, got {shown(text)}"
            )
        return value

    def _note(self, path: FieldPath, node: yaml.Node) -> None:
        self.positions[path] = (node.start_mark.line + 1, node.start_mark.column + 1)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_PREFIX}null"


def _short_tag(tag: str) -> str:
    return clipped(f"!!{tag.removeprefix(_PREFIX)}" if tag.startswith(_PREFIX) else tag)


def _error(name: str, mark: Any, reason: str) -> InvalidInput:
    place = (
        one_line(name) if mark is None else f"{one_line(name)}:{mark.line + 1}:{mark.column + 1}"
    )
    return InvalidInput(f"{place}: {reason}", target=name)


def _syntax_error(error: yaml.YAMLError, text: str, name: str) -> InvalidInput:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        lines = text.splitlines()
        line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return _error(name, mark, "found a tab; expected spaces for indentation")
        return _error(name, mark, f"expected valid YAML: {one_line(error.problem or 'cut short')}")
    reason = one_line(str(getattr(error, "reason", "unreadable")))
    return InvalidInput(f"{one_line(name)}: expected valid YAML text: {reason}", target=name)
