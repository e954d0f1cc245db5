"""The table in which the rate limits of the sign-in pages are kept (CACHES in the settings)."""

from django.core.management import call_command
from django.db import migrations


def create_cache_table(apps, schema_editor):
    call_command("createcachetable", "django_cache", database=schema_editor.connection.alias, verbosity=0)


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_tables")]
    operations = [migrations.RunPython(create_cache_table, migrations.RunPython.noop, elidable=False)]
