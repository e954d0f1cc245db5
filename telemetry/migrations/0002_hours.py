"""What is read of all accounts together is found by its hour."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('telemetry', '0001_tables'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='foldedhour',
            index=models.Index(fields=['hour'], name='usage_folded_hours_hour'),
        ),
    ]
