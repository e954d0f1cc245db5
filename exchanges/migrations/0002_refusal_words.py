"""Rows written before say by a regular expression where a refusal names its symbol; now a text says so."""

from django.db import migrations

WORDS = {
    "publicTrade\\.([A-Z0-9]+)": {"symbol_after": "publicTrade."},
    "(?:publicTrade|topic)\\S*\\.([A-Z0-9]+)": {"symbol_after": "publicTrade."},
    "([A-Z0-9]+-[A-Z0-9]+)": {"symbol_before": " is not a valid product"},
    "([A-Z0-9]+_[A-Z0-9]+)\\s*$": {"symbol_after": "currency pair "},
    "([a-z0-9]+)@": {"symbol_before": "@"},
    "instId:([A-Z0-9-]+)": {"symbol_after": "instId:"},
    "live_trades_([a-z0-9]+)": {"symbol_after": "live_trades_"},
    "([a-z0-9]+usdt)": {"symbol_after": "market.", "symbol_before": ".trade"},
}


def say_it_by_words(apps, schema_editor):
    """Replace the patterns that were shipped; without another one refusals name no symbol, which still works."""
    for feed in apps.get_model("exchanges", "ExchangeFeed").objects.all():
        refusals = feed.quirks.get("refusals") if isinstance(feed.quirks, dict) else None
        if not isinstance(refusals, list) or not any("symbol_pattern" in refusal for refusal in refusals):
            continue
        for refusal in refusals:
            refusal.update(WORDS.get(refusal.pop("symbol_pattern", ""), {}))
        feed.save(update_fields=["quirks"])


class Migration(migrations.Migration):
    dependencies = [("exchanges", "0001_tables")]

    operations = [migrations.RunPython(say_it_by_words, migrations.RunPython.noop)]
