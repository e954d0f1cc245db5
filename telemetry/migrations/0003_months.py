"""What is read of all keys together is found by its month."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('telemetry', '0002_hours'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='foldedmonth',
            index=models.Index(fields=['month', 'node'], name='usage_folded_months_month'),
        ),
    ]
