"""Two symbols of an exchange that differ only in case: the feeds follow one of them, the database takes one."""

from django.db import migrations, models
from django.db.models.functions import Lower
from django.utils import timezone

NAME = "exchange_asset_map_exchange_symbol"


def drop_symbols_alike(apps, schema_editor):
    """Delete the listings that the feeds have passed over so far; the history of changes says so."""
    listings = apps.get_model("exchanges", "ExchangeAsset")
    history = apps.get_model("exchanges", "HistoricalExchangeAsset")
    columns = [field.attname for field in listings._meta.concrete_fields]
    followed = set()
    for one in listings.objects.order_by("-prewarm", "asset"):
        key = one.exchange_id, one.symbol.lower()
        if key in followed:
            history.objects.create(
                **{column: getattr(one, column) for column in columns},
                history_date=timezone.now(),
                history_type="-",
                history_change_reason="migration: another symbol differs only in case",
            )
            one.delete()
        followed.add(key)


class Migration(migrations.Migration):
    dependencies = [("exchanges", "0002_refusal_words")]

    operations = [
        migrations.RunPython(drop_symbols_alike, migrations.RunPython.noop),
        migrations.RemoveConstraint(model_name="exchangeasset", name=NAME),
        migrations.AddConstraint(
            model_name="exchangeasset",
            constraint=models.UniqueConstraint(
                models.F("exchange"),
                Lower("symbol"),
                name=NAME,
                violation_error_message="Another asset has this symbol at this exchange; case makes no "
                "difference.",
            ),
        ),
    ]
