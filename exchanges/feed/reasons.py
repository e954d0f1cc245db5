"""Why ticks are refused, in plain words for those who look after the exchanges. Pure."""

from typing import Final

from exchanges.feed.guard import FUTURE, JUMP, OLDER, REPEAT

EXPLANATIONS: Final = {
    OLDER: "The trade is older than the one already shown. Usual after a reconnection, when exchanges "
    "repeat their last trades.",
    REPEAT: "The same trade once more. Usual after a reconnection.",
    FUTURE: "The trade's time is more than 5 s ahead of this node's clock. Look at that clock first, then "
    "at timestamp_format.",
    JUMP: "The price stepped further than max_jump_percent allows, and nothing has confirmed it: no second "
    "exchange, and no second trade (a minute of trades where two others agree on another price).",
    "no_symbol": "There was a price and no symbol with it: symbol_path does not fit the frame.",
    "bad_price": "What stands where the price should be is no plausible price: price_path does not fit, or "
    "the exchange sent nonsense.",
    "bad_time": "What stands where the time should be cannot be read: timestamp_path or timestamp_format "
    "does not fit.",
    "implausible_time": "The time is far from any real one: the exchange counts in another unit than "
    "timestamp_format says.",
    "bad_json": "The frame was no JSON.",
    "too_many_trades": "The frame held more than 4,096 trades, or as much of another kind: it was not read.",
    "refused": "The exchange would not subscribe the symbol; its words stand beside it.",
}
USUAL: Final = frozenset({OLDER, REPEAT})
"""Reasons that come up at every healthy feed and need nobody."""
