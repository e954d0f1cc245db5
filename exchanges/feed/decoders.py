"""msgspec decoders made from the paths of a row. Sans-I/O.

The paths become a tree of msgspec Structs which know only the fields that the row asks for; everything else in a frame is
skipped without making an object. Conditions that must hold are part of the types, so that most foreign frames are refused
while decoding. Numbers stay text (`msgspec.Raw`).
"""

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from exchanges.feed.paths import EVERY, Path, Step

Row = tuple[str, str, str, str]
Decoder = Callable[[str | bytes], list[Row] | None]


class Fields(NamedTuple):
    """The paths inside one trade; ``trade_id`` may be empty."""

    symbol: str
    price: str
    time: str
    trade_id: str


class _Unsupported(Exception):
    """A path that needs the walk: places, any key, alternatives, the document as an array."""


class _Node:
    """A key of a frame: what is below it, whether it must be there, and what it must be."""

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.listed = False  # its value is a list of objects, or one object
        self.required = False
        self.forbidden = False
        self.literal: object = UNSET
        self.text = False

    def child(self, key: str) -> "_Node":
        return self.children.setdefault(key, _Node())

    def descend(self, steps: tuple[Step, ...]) -> "_Node":
        node = self
        for step in steps:
            if not isinstance(step, str):
                raise _Unsupported
            node = node.child(step)
        return node


def build_decoder(match: Mapping[str, Any], trades_path: str, fields: Fields) -> Decoder | None:
    """Return a function from a frame to the texts of its trades, None for a frame that is none; None if the paths are too rich."""
    try:
        return _Builder(match, trades_path, fields).decoder()
    except _Unsupported:
        return None


def _keys(path_text: str) -> tuple[Step, ...]:
    path = Path(path_text)
    if len(path.alternatives) != 1:
        raise _Unsupported
    return path.alternatives[0]


class _Builder:
    def __init__(self, match: Mapping[str, Any], trades_path: str, fields: Fields) -> None:
        self.root = _Node()
        self.starts: list[tuple[_Node, str]] = []
        for path, condition in match.items():
            self._add_condition(self.root.descend(_keys(path)), condition)
        self.containers, row = self._add_containers(_keys(trades_path))
        self.row = row
        self.leaves = [self._add_field(path) for path in fields]
        self.types: dict[int, type] = {}
        self.names: dict[int, dict[str, str]] = {}

    def _add_condition(self, node: _Node, condition: Any) -> None:  # Any: a condition of the table
        match condition:
            case {"starts_with": str(start)}:
                node.required = node.text = True
                self.starts.append((node, start))
            case {"present": True}:
                node.required = True
            case {"present": False}:
                node.forbidden = True
            case str():
                node.literal, node.required = condition, True
            case _:
                raise _Unsupported

    def _add_containers(self, steps: tuple[Step, ...]) -> tuple[list[_Node], _Node]:
        """Mark the lists on the way to the trades; return them and the node of one trade."""
        containers: list[_Node] = []
        node = self.root
        for number, step in enumerate(steps):
            if isinstance(step, str):
                node = node.child(step)
                if number + 1 == len(steps) or steps[number + 1] is EVERY:
                    node.listed = True
                    containers.append(node)
            elif step is not EVERY or number == 0 or steps[number - 1] is EVERY:
                raise _Unsupported
        return containers, node

    def _add_field(self, path_text: str) -> tuple[bool, _Node] | None:
        if not path_text:
            return None
        from_root = Path(path_text).from_document
        steps = _keys(path_text)
        if not steps:
            raise _Unsupported
        node = (self.root if from_root else self.row).descend(steps)
        if node.children or node.listed or node.forbidden:
            raise _Unsupported
        node.text = node.text or node.literal is not UNSET
        return from_root, node

    def _type(self, node: _Node) -> Any:  # Any: a type made at run time
        if not node.children:
            if node.literal is not UNSET:
                return Literal[node.literal]
            return str if node.text else Raw
        if node.literal is not UNSET or node.text:
            raise _Unsupported
        struct = self._struct(node)
        return list[struct] | struct if node.listed else struct  # type: ignore[valid-type]

    def _struct(self, node: _Node) -> type:
        fields: list[Any] = []
        rename = self.names[id(node)] = {}
        for number, (key, child) in enumerate(node.children.items()):
            name = f"f{number}"
            rename[name] = key
            kind = self._type(child)
            on_the_way = child in self.containers
            if (child.required or on_the_way) and not child.forbidden:
                fields.append((name, kind))
            else:
                fields.append(
                    (name, kind | UnsetType if kind is not Raw else Raw, UNSET if kind is not Raw else Raw())
                )
        fields.sort(key=len)
        self.types[id(node)] = struct = msgspec.defstruct("Node", fields, rename=rename, gc=False)
        return struct

    def _attribute(self, start: _Node, target: _Node) -> str:
        """Return the dotted attribute that leads from one node's object to another node's value."""
        for name, key in self.names[id(start)].items():
            child = start.children[key]
            if child is target:
                return name
            if child.children and not child.listed:
                try:
                    return f"{name}.{self._attribute(child, target)}"
                except LookupError:
                    continue
        raise LookupError(target)

    def decoder(self) -> Decoder:
        if self.root.listed or not self.root.children:
            raise _Unsupported
        decode = msgspec.json.Decoder(self._struct(self.root)).decode
        holds = self._conditions()
        rows = self._rows()
        read = self._fields()

        def decoder(frame: str | bytes) -> list[Row] | None:
            try:
                root = decode(frame)
                return read(root, rows(root)) if holds is None or holds(root) else None
            except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
                return None

        return decoder

    def _conditions(self) -> Callable[[Any], bool] | None:
        starts = [(attrgetter(self._attribute(self.root, node)), start) for node, start in self.starts]
        absent = [attrgetter(self._attribute(self.root, node)) for node in self._forbidden(self.root)]
        if not starts and not absent:
            return None
        return lambda root: (
            all(get(root).startswith(start) for get, start in starts) and not any(get(root) for get in absent)
        )

    def _forbidden(self, node: _Node) -> Iterator[_Node]:
        for child in node.children.values():
            if child.forbidden:
                yield child
            yield from self._forbidden(child)

    def _rows(self) -> Callable[[Any], Any]:
        getters = []
        start = self.root
        for container in self.containers:
            getters.append(attrgetter(self._attribute(start, container)))
            start = container
        if not getters:
            return lambda root: (root,)
        if len(getters) == 1:
            get = getters[0]
            return lambda root: _as_list(get(root))

        def rows(root: Any) -> list[Any]:
            level = [root]
            for get in getters:
                level = [child for parent in level for child in _as_list(get(parent))]
            return level

        return rows

    def _fields(self) -> Callable[[Any, Any], list[Row]]:
        """Return the step from objects to texts. Fields of the document are read once a frame."""
        places = []
        for leaf in self.leaves:
            if leaf is None:
                places.append(None)
                continue
            from_root, node = leaf
            places.append(
                (from_root, attrgetter(self._attribute(self.root if from_root else self.row, node)))
            )
        if all(place is not None and not place[0] for place in places):
            four = attrgetter(
                *(self._attribute(self.row, leaf[1]) for leaf in self.leaves if leaf is not None)
            )
            return lambda root, rows: [
                (_text(symbol), _text(price), _text(time), _text(trade_id))
                for symbol, price, time, trade_id in map(four, rows)
            ]

        def read(root: Any, rows: Any) -> list[Row]:
            return [
                tuple("" if place is None else _text(place[1](root if place[0] else row)) for place in places)  # type: ignore[misc]
                for row in rows
            ]

        return read


def _as_list(value: Any) -> Any:
    return value if type(value) is list else (value,)


def _text(value: Any) -> str:
    """Return the text of a string or number as it stands in the frame; empty for anything else."""
    if type(value) is str:
        return value
    literal = str(value, "utf-8")
    first = literal[:1]
    if first == '"':
        return msgspec.json.decode(literal) if "\\" in literal else literal[1:-1]  # type: ignore[no-any-return]
    return literal if first in _NUMBER_STARTS else ""


_NUMBER_STARTS = frozenset("-0123456789")
