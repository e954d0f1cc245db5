"""The `quirks` column: everything about an exchange that is rarer than a column. Sans-I/O.

The classes are the schema: `quirks_schema()` makes the JSON Schema of them, and every field has a default,
so `{}` is a whole set of quirks. A *match* is an object of path → condition, as in the column
`trade_match`; all conditions must hold.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from exchanges.feed.matching import MatchError, compile_match
from exchanges.feed.paths import Path, PathError
from exchanges.feed.templates import REPLY_VALUE
from exchanges.feed.timestamps import FORMATS

Match = dict[str, Any]  # path → literal, {"starts_with": text} or {"present": true|false}
Seconds = Annotated[float, Meta(ge=0, le=10_000_000)]
Count = Annotated[int, Meta(ge=0, le=100_000)]
Text = Annotated[str, Meta(max_length=2_000)]
Given = Annotated[str, Meta(min_length=1, max_length=2_000)]
Conditions = Annotated[Match, Meta(min_length=1)]  # none at all would hold for no frame
TimestampFormat = Literal[FORMATS]  # type: ignore[valid-type]  # the names are the keys of the table of readers


class TradeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A further kind of trade frame; what is empty is taken from the columns."""

    trade_match: Conditions
    trades_path: Text = ""
    symbol_path: Text = ""
    price_path: Text = ""
    timestamp_path: Text = ""
    timestamp_format: TimestampFormat | None = None
    trade_id_path: Text = ""


class AckRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A frame that confirms: one symbol (it is named), a list of symbols (named), or the oldest open request
    (not named).
    """

    match: Conditions
    symbol_path: Text = ""


class RefusalRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A frame that refuses.

    The symbol is at symbol_path, or it is the word in the text at message_path that follows symbol_after,
    precedes symbol_before, or both.
    """

    match: Conditions
    message_path: Text = ""
    symbol_path: Text = ""
    symbol_after: Text = ""
    symbol_before: Text = ""
    scope: Literal["symbol", "frame"] = "symbol"  # frame: the whole request was refused because of it
    already: bool = False  # the symbol is subscribed already: nothing is wrong with it


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to answer to a frame; `{$.path}` in `frame` stands for the value at that path, as JSON."""

    match: Conditions
    frame: Given


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The socket's address comes from a POST: `{ENDPOINT}`, `{TOKEN}` (URL-encoded), `{UUID}` fill ws_url."""

    url: Given
    endpoint_path: Given
    token_path: Given


class Connect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the exchange wants to be dialled."""

    min_gap_s: Seconds = 1.0
    window_s: Seconds = 0
    window_attempts: Count = 0
    max_age_s: Seconds = 0
    delay_s: Seconds = 0
    wait_for: Match = {}
    token: Token | None = None


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Trades name a channel number; the frame that matches says which symbol it stands for."""

    match: Conditions
    id_path: Given
    symbol_path: Given


class Rest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The REST answer: its time, its symbol, what an error looks like, and how often it may be asked."""

    time_path: Text = ""
    time_format: TimestampFormat | None = None
    time_is: Literal["trade", "answer"] = "answer"  # the answer's own time tells nothing of the trade's age
    symbol_path: Text = ""
    error_match: tuple[Conditions, ...] = ()
    rate_per_s: Annotated[int, Meta(ge=1, le=1_000)] = 5


class Quirks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything rarer than a column."""

    trade_id_path: Text = ""
    tie: Literal["id", "place"] = "id"  # equal times: the higher numeric trade id, or the later place
    symbol_prefix: Text = ""  # cut off what symbol_path finds: "live_trades_"
    symbol_suffix: Text = ""
    symbol_join: Annotated[str, Meta(max_length=8)] = ","
    encoding: Literal["text", "gzip"] = "text"  # text: also when it comes in binary frames
    trade_rules: tuple[TradeRule, ...] = ()
    channel: Channel | None = None

    acks: tuple[AckRule, ...] = ()
    refusals: tuple[RefusalRule, ...] = ()
    replies: tuple[Reply, ...] = ()
    pong: tuple[Conditions, ...] = ()
    pong_text: Text = ""
    reconnect: tuple[Conditions, ...] = ()
    pause: tuple[Conditions, ...] = ()
    resume: tuple[Conditions, ...] = ()

    silence_limit_s: Annotated[float, Meta(ge=1, le=86_400)] = 60.0  # no trade at all for so long: dial again
    frame_limit_s: Seconds = 0  # no frame of any kind; 0: only the protocol ping tells
    confirm_s: Annotated[float, Meta(ge=1, le=3_600)] = (
        30.0  # neither acknowledged nor heard of: asked again, alone
    )
    connect: Connect = Connect()
    symbols_per_connection: Count = 0
    frame_gap_ms: Count = 0
    unsubscribe_template: Text = ""

    max_jump_percent: Annotated[int, Meta(ge=1, le=1_000)] = 20
    rest: Rest = Rest()


def quirks_schema() -> dict[str, Any]:
    """Return the JSON Schema of the column."""
    (reference,), components = msgspec.json.schema_components([Quirks], ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **reference, "$defs": components}


_PATH_FIELDS = frozenset(
    {
        "trade_id_path",
        "id_path",
        "time_path",
        "endpoint_path",
        "token_path",
        "message_path",
        "trades_path",
        "symbol_path",
        "price_path",
        "timestamp_path",
    }
)
_MATCH_FIELDS = frozenset({"match", "trade_match", "wait_for"})
_MATCH_LISTS = frozenset({"pong", "reconnect", "pause", "resume", "error_match"})


def unusable(rule: msgspec.Struct, where: str = "") -> list[str]:
    """Say what the schema cannot: paths and conditions that cannot be read."""
    messages: list[str] = []
    for field in rule.__struct_fields__:
        value, place = getattr(rule, field), f"{where}{field}"
        try:
            if field in _PATH_FIELDS and value:
                Path(value)
            elif field in _MATCH_FIELDS:
                compile_match(value)
            elif field in _MATCH_LISTS:
                for match in value:
                    compile_match(match)
            elif field == "frame":
                for path in REPLY_VALUE.findall(value):
                    Path(path)
        except (PathError, MatchError) as error:
            messages.append(f"{place}: {error}")
        children = value if isinstance(value, tuple) else (value,)
        for number, child in enumerate(children):
            if isinstance(child, msgspec.Struct):
                inner = f"{place}[{number}]." if isinstance(value, tuple) else f"{place}."
                messages += unusable(child, inner)
    return messages
