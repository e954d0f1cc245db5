"""Forms of the command centre: what each column of a row means, and room to write it."""

import json
from typing import Any

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from exchanges.models import ExchangeAsset, ExchangeFeed

FEED_HELP = {
    "name": "A slug, and the key everywhere: in answers, addresses and commands. It cannot be changed later.",
    "display_name": "What people read.",
    "enabled": "Connected, and shown in public.",
    "quote_currency": "What prices are in; part of every answer.",
    "ws_url": "wss://… Private and link-local addresses are refused, and loopback unless a setting allows.",
    "subscribe_template": "JSON text of one frame, or a JSON list of frames sent in order. Placeholders: "
    "{SYMBOLS} (the joined list), {SYMBOL} (then one frame per symbol), {NOW_S}, {NOW_MS}, {ID}, {UUID}.",
    "symbol_template": 'How one symbol looks inside {SYMBOLS}: "{SYMBOL}", "publicTrade.{SYMBOL}", '
    '{"channel":"trades","instId":"{SYMBOL}"}.',
    "symbols_per_frame": "How many symbols one subscribe frame may carry; 0 = all.",
    "trade_match": "What makes a frame a trade: path → condition, and all must hold. A condition is a "
    'literal (equals), {"starts_with": "…"}, {"present": true} or {"present": false}.',
    "trades_path": "Where the trades are: events[*].trades[*], data[*], result (an object counts as a list "
    "of one), $ (the frame itself).",
    "symbol_path": "Inside one trade; a leading $. starts at the frame again.",
    "price_path": "Inside one trade. The exchange's own digits are kept.",
    "timestamp_path": "Inside one trade: when it was traded.",
    "timestamp_format": "Numbers and texts are both read, with decimals too.",
    "ping_interval_s": "Seconds between pings; 0 = none.",
    "ping_payload": "Text as it is, placeholders allowed; empty = a ping of the WebSocket protocol.",
    "rest_url": "Asked when the feed has no fresh price; {SYMBOL} inside. Empty = never asked.",
    "rest_price_path": "Paths know [*], [0], [-1] and a wildcard key: result.*.c[0].",
    "quirks": "Everything rarer, each with a default: trade ids, acknowledgements and refusals, reconnect "
    "and pause notices, silence limits, pacing, REST times. A mistake is answered with the field's name.",
}
ASSET_HELP = {
    "asset": "BTC",
    "symbol": "What the exchange calls it: BTC-USD.",
    "rest_symbol": "Only when the REST address wants another name.",
    "enabled": "Shown in public.",
    "prewarm": "Subscribed live.",
    "home": "This exchange answers by default. One per asset: “Make home” in the list moves it.",
}
_ONE_LINE = (
    "ws_url",
    "trades_path",
    "symbol_path",
    "price_path",
    "timestamp_path",
    "rest_url",
    "rest_price_path",
)
_ROWS = {"subscribe_template": 4, "symbol_template": 2, "trade_match": 4, "ping_payload": 2, "quirks": 18}
_MONOSPACE = "tb-code"


class RowForm(forms.ModelForm):
    """A form over some columns of a row whose other columns may be what is wrong."""

    def _update_errors(self, errors: ValidationError) -> None:
        elsewhere = [field for field in errors.error_dict if field not in {*self.fields, NON_FIELD_ERRORS}]
        for field in elsewhere:
            messages = "; ".join(errors.message_dict[field])
            errors.error_dict.setdefault(NON_FIELD_ERRORS, []).append(ValidationError(f"{field}: {messages}"))
            del errors.error_dict[field]
        super()._update_errors(errors)  # type: ignore[misc]  # Django's own hook, not in its stubs


class _Indented(json.JSONEncoder):
    def __init__(self, **options: Any) -> None:  # Any: json's own options
        super().__init__(**{**options, "indent": 2, "ensure_ascii": False})


class FeedForm(RowForm):
    class Meta:
        model = ExchangeFeed
        fields = "__all__"  # noqa: DJ007 (the columns are a contract, and all of them are edited)
        help_texts = FEED_HELP
        widgets = {
            name: UnfoldAdminTextInputWidget(attrs={"class": _MONOSPACE, "spellcheck": "false"})
            for name in _ONE_LINE
        } | {
            name: UnfoldAdminTextareaWidget(attrs={"class": _MONOSPACE, "rows": rows, "spellcheck": "false"})
            for name, rows in _ROWS.items()
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Any: Django's own signature
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            if isinstance(field, forms.JSONField):
                field.encoder = _Indented


class AssetForm(RowForm):
    class Meta:
        model = ExchangeAsset
        fields = "__all__"  # noqa: DJ007 (the columns are a contract, and all of them are edited)
        help_texts = ASSET_HELP
