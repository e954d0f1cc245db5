"""msgspec decoders made from the paths of a row. Sans-I/O.

The paths become a tree of msgspec Structs which know only the fields that the row asks for; everything else
in a frame is skipped without making an object. Conditions that must hold are part of the types, so that
most foreign frames are refused while decoding. A price is text, or stays as it is written (`msgspec.Raw`)
where it is a JSON number; what the types do not admit is left to the walk.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw

from exchanges.feed.paths import EVERY, Path, Step

MAX_TRADES: Final = 4_096  # in a frame; a snapshot of every symbol has a few hundred

Row = tuple[str, str | Raw, str | int, str | int]  # symbol, price as written, time, trade id
Decoder = Callable[[str | bytes], Iterable[Row] | None]


class TooManyTrades(Exception):
    """A frame with more than MAX_TRADES, of which none is read."""


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
        self.alone = False  # a condition or a `$.` path leads through it: then it is no list
        self.required = False
        self.forbidden = False
        self.literal: object = UNSET
        self.kind: Any = None  # the type of a value that is read; None: only its presence counts

    def child(self, key: str) -> "_Node":
        return self.children.setdefault(key, _Node())

    def descend(self, steps: tuple[Step, ...], *, alone: bool) -> "_Node":
        node = self
        for step in steps:
            if not isinstance(step, str):
                raise _Unsupported
            node.alone |= alone
            node = node.child(step)
        return node


def build_decoder(
    match: Mapping[str, Any], trades_path: str, fields: Fields, *, price: type[str] | type[Raw] = Raw
) -> Decoder | None:
    """Return a function from a frame to the texts of its trades, None for a frame that is none; None if the
    paths are too rich.
    """
    try:
        return _Builder(match, trades_path, fields, price).decoder()
    except _Unsupported:
        return None


def _keys(path_text: str) -> tuple[Step, ...]:
    path = Path(path_text)
    if len(path.alternatives) != 1:
        raise _Unsupported
    return path.alternatives[0]


class _Builder:
    def __init__(
        self, match: Mapping[str, Any], trades_path: str, fields: Fields, price: type[str] | type[Raw]
    ) -> None:
        self.root = _Node()
        self.starts: list[tuple[_Node, str]] = []
        for path, condition in match.items():
            self._add_condition(self.root.descend(_keys(path), alone=True), condition)
        self.containers, row = self._add_containers(_keys(trades_path))
        self.row = row
        kinds = (str, price, str | int, str | int)
        self.leaves = [self._add_field(path, kind) for path, kind in zip(fields, kinds, strict=True)]
        self.types: dict[int, type] = {}
        self.names: dict[int, dict[str, str]] = {}

    def _add_condition(self, node: _Node, condition: Any) -> None:  # Any: a condition of the table
        match condition:
            case {"starts_with": str(start)}:
                node.required, node.kind = True, str
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

    def _add_field(self, path_text: str, kind: Any) -> tuple[bool, _Node] | None:  # Any: a type
        if not path_text:
            return None
        from_root = Path(path_text).from_document
        steps = _keys(path_text)
        if not steps:
            raise _Unsupported
        node = (self.root if from_root else self.row).descend(steps, alone=from_root)
        if node.children or node.listed or node.forbidden:
            raise _Unsupported
        node.kind = kind if node.kind is None else node.kind
        return from_root, node

    def _type(self, node: _Node) -> Any:  # Any: a type made at run time
        if not node.children:
            if node.literal is not UNSET:
                return Literal[node.literal]
            return Raw if node.kind is None else node.kind
        if node.literal is not UNSET or node.kind is not None:
            raise _Unsupported
        struct = self._struct(node)
        return list[struct] | struct if node.listed and not node.alone else struct  # type: ignore[valid-type]

    def _struct(self, node: _Node) -> type:
        fields: list[Any] = []
        rename = self.names[id(node)] = {}
        for number, (key, child) in enumerate(node.children.items()):
            name = f"f{number}"
            rename[name] = key
            kind = self._type(child)
            on_the_way = child in self.containers
            if (child.required or child.children or on_the_way) and not child.forbidden:
                fields.append((name, kind))
            else:
                fields.append((name, kind, Raw() if kind is Raw else ""))
        fields.sort(key=len)
        self.types[id(node)] = struct = msgspec.defstruct("Node", fields, rename=rename, gc=False)
        return struct

    def _attribute(self, start: _Node, target: _Node) -> str:
        """Return the dotted attribute that leads from one node's object to another node's value."""
        for name, key in self.names[id(start)].items():
            child = start.children[key]
            if child is target:
                return name
            if child.children and (child.alone or not child.listed):
                try:
                    return f"{name}.{self._attribute(child, target)}"
                except LookupError:
                    continue
        raise LookupError(target)

    def decoder(self) -> Decoder:
        if self.root.listed or not self.root.children:
            raise _Unsupported
        decode: Callable[[str | bytes], Any] = msgspec.json.Decoder(self._struct(self.root)).decode
        holds = self._conditions()
        find = self._find()
        pick, pick_all = self._pick(), self._pick_all()

        def decoder(frame: str | bytes) -> Iterable[Row] | None:
            try:
                root = decode(frame)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                return None
            if holds is not None and not holds(root):
                return None
            rows = find(root)
            if pick is None:
                return pick_all(root, at_most(_as_list(rows)))
            if type(rows) is not list:
                return (pick(rows),)
            return (pick(rows[0]),) if len(rows) == 1 else map(pick, at_most(rows))

        return decoder

    def _conditions(self) -> Callable[[Any], bool] | None:
        tests = [_starts(attrgetter(self._attribute(self.root, node)), start) for node, start in self.starts]
        tests += [
            _absent(attrgetter(self._attribute(self.root, node))) for node in self._forbidden(self.root)
        ]
        if not tests:
            return None
        return tests[0] if len(tests) == 1 else lambda root: all(test(root) for test in tests)

    def _forbidden(self, node: _Node) -> Iterator[_Node]:
        for child in node.children.values():
            if child.forbidden:
                yield child
            yield from self._forbidden(child)

    def _find(self) -> Callable[[Any], Any]:
        """Return the way from the document to its trades: one step for each list there."""
        starts = [self.root, *self.containers]
        pairs = zip(starts, self.containers, strict=False)  # one start more
        steps = [attrgetter(self._attribute(start, container)) for start, container in pairs]
        if not steps:
            return lambda root: root
        first, *others = steps
        if not others:
            return first

        def find(root: Any) -> Any:
            rows = first(root)
            for step in others:
                if type(rows) is not list:
                    rows = step(rows)
                elif len(rows) == 1:  # one event a frame is the rule
                    rows = step(rows[0])
                else:
                    rows = [child for parent in rows for child in _as_list(step(parent))]
            return rows

        return find

    def _pick(self) -> Callable[[Any], Row] | None:
        """Return the step from one trade to (symbol, price, time, trade id); None unless it has all four."""
        if any(leaf is None or leaf[0] for leaf in self.leaves):
            return None
        return attrgetter(*(self._attribute(self.row, leaf[1]) for leaf in self.leaves if leaf is not None))

    def _pick_all(self) -> Callable[[Any, Any], Iterable[Row]]:
        """Return the step from the document and its trades to the four values of each."""
        getters = [
            None
            if leaf is None
            else (leaf[0], attrgetter(self._attribute(self.root if leaf[0] else self.row, leaf[1])))
            for leaf in self.leaves
        ]

        def read(root: Any, rows: Any) -> Iterable[Row]:
            for row in rows:
                yield tuple(  # type: ignore[misc]  # four values, as there are four fields
                    "" if getter is None else getter[1](root if getter[0] else row) for getter in getters
                )

        return read


def _starts(get: Callable[[Any], Any], start: str) -> Callable[[Any], bool]:
    return lambda root: get(root).startswith(start)


def _absent(get: Callable[[Any], Any]) -> Callable[[Any], bool]:
    return lambda root: not get(root)


def _as_list(value: Any) -> Any:
    return value if type(value) is list else (value,)


def at_most(rows: Any) -> Any:  # Any: a list, or a tuple of one
    """Return *rows* as they are; raise TooManyTrades where there are more than MAX_TRADES."""
    if len(rows) > MAX_TRADES:
        raise TooManyTrades
    return rows
