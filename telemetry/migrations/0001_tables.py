"""Usage: logs, what of every segment is written, sums, and what was set aside."""

import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models

SUMS = (
    "account_id, hour, key_id, month, asset, exchange, source, simulated, protocol, endpoint, status, tier, "
    "answers, assets, latency_us, latency_us_max"
)
VIEWS = {
    "usage_rollups": f"SELECT {SUMS} FROM usage_folded_hours UNION ALL SELECT {SUMS} FROM usage_parts",
    "usage_months": (
        "SELECT key_id, month, node, counted FROM usage_folded_months UNION ALL "
        "SELECT key_id, month, node, answers FROM usage_parts WHERE month <> 0"
    ),
}


class CreatePartitionedModel(migrations.CreateModel):
    """Create a model's table, which in PostgreSQL is a parent of partitions by the time in its column `at`."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.name)
        statement, parameters = schema_editor.table_sql(model)
        schema_editor.execute(f"{statement} PARTITION BY RANGE (at)", parameters or None)
        table = model._meta.db_table
        schema_editor.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")


def tune(apps, schema_editor):
    """Parts come and go all the time and are never asked for one by one; folded rows are changed in place."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE usage_parts DROP COLUMN id")
        schema_editor.execute(
            "ALTER TABLE usage_parts SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000)"
        )
        for table in ("usage_folded_hours", "usage_folded_months"):
            schema_editor.execute(f"ALTER TABLE {table} SET (fillfactor = 80)")


class Migration(migrations.Migration):

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name='UsageMonth',
            fields=[
                ('pk', models.CompositePrimaryKey('key_id', 'month', 'node', blank=True, editable=False, primary_key=True, serialize=False)),
                ('key_id', models.BigIntegerField()),
                ('month', models.IntegerField()),
                ('node', models.CharField(max_length=64)),
                ('counted', models.BigIntegerField()),
            ],
            options={
                'db_table': 'usage_months',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='UsageRollup',
            fields=[
                ('hour', models.DateTimeField()),
                ('account_id', models.BigIntegerField()),
                ('key_id', models.BigIntegerField()),
                ('answers', models.BigIntegerField()),
                ('assets', models.BigIntegerField()),
                ('latency_us', models.BigIntegerField(help_text='Of all of them together.')),
                ('latency_us_max', models.IntegerField()),
                ('month', models.IntegerField()),
                ('status', models.SmallIntegerField()),
                ('tier', models.SmallIntegerField()),
                ('source', models.SmallIntegerField()),
                ('protocol', models.SmallIntegerField()),
                ('endpoint', models.SmallIntegerField()),
                ('simulated', models.BooleanField()),
                ('asset', models.TextField()),
                ('exchange', models.TextField()),
                ('pk', models.CompositePrimaryKey('account_id', 'hour', 'key_id', 'month', 'asset', 'exchange', 'source', 'simulated', 'protocol', 'endpoint', 'status', 'tier', blank=True, editable=False, primary_key=True, serialize=False)),
            ],
            options={
                'db_table': 'usage_rollups',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='FoldedHour',
            fields=[
                ('hour', models.DateTimeField()),
                ('account_id', models.BigIntegerField()),
                ('key_id', models.BigIntegerField()),
                ('answers', models.BigIntegerField()),
                ('assets', models.BigIntegerField()),
                ('latency_us', models.BigIntegerField(help_text='Of all of them together.')),
                ('latency_us_max', models.IntegerField()),
                ('month', models.IntegerField()),
                ('status', models.SmallIntegerField()),
                ('tier', models.SmallIntegerField()),
                ('source', models.SmallIntegerField()),
                ('protocol', models.SmallIntegerField()),
                ('endpoint', models.SmallIntegerField()),
                ('simulated', models.BooleanField()),
                ('asset', models.TextField()),
                ('exchange', models.TextField()),
                ('pk', models.CompositePrimaryKey('account_id', 'hour', 'key_id', 'month', 'asset', 'exchange', 'source', 'simulated', 'protocol', 'endpoint', 'status', 'tier', blank=True, editable=False, primary_key=True, serialize=False)),
            ],
            options={
                'db_table': 'usage_folded_hours',
            },
        ),
        migrations.CreateModel(
            name='FoldedMonth',
            fields=[
                ('pk', models.CompositePrimaryKey('key_id', 'month', 'node', blank=True, editable=False, primary_key=True, serialize=False)),
                ('key_id', models.BigIntegerField()),
                ('counted', models.BigIntegerField()),
                ('month', models.IntegerField()),
                ('node', models.CharField(max_length=64)),
            ],
            options={
                'db_table': 'usage_folded_months',
            },
        ),
        migrations.CreateModel(
            name='Quarantined',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.BinaryField(max_length=32, unique=True)),
                ('received_at', models.DateTimeField(auto_now_add=True)),
                ('reason', models.TextField()),
                ('document', models.BinaryField()),
                ('tries', models.PositiveIntegerField(default=1)),
                ('replayed_at', models.DateTimeField(editable=False, null=True)),
            ],
            options={
                'verbose_name': 'envelope set aside',
                'verbose_name_plural': 'envelopes set aside',
                'db_table': 'usage_quarantine',
                'ordering': ('-received_at', '-id'),
            },
        ),
        CreatePartitionedModel(
            name='UsageLog',
            fields=[
                ('pk', models.CompositePrimaryKey('account_id', 'at', 'segment_id', 'sequence', blank=True, editable=False, primary_key=True, serialize=False)),
                ('at', models.DateTimeField()),
                ('account_id', models.BigIntegerField()),
                ('key_id', models.BigIntegerField()),
                ('segment_id', models.IntegerField()),
                ('sequence', models.IntegerField(help_text='Within its segment, from 1.')),
                ('month', models.IntegerField(help_text='202611, in which the gate has counted it; 0: not counted.')),
                ('latency_us', models.IntegerField()),
                ('status', models.SmallIntegerField(help_text='As HTTP has it, over UDP too.')),
                ('assets', models.SmallIntegerField(help_text='How many were asked for.')),
                ('tier', models.SmallIntegerField(help_text='0 without a price.')),
                ('source', models.SmallIntegerField()),
                ('protocol', models.SmallIntegerField()),
                ('endpoint', models.SmallIntegerField()),
                ('simulated', models.BooleanField()),
                ('asset', models.TextField(help_text='The first one, where several were asked for.')),
                ('exchange', models.TextField()),
                ('price', models.TextField(help_text='The digits that were served.')),
                ('quote', models.TextField()),
            ],
            options={
                'db_table': 'usage_logs',
            },
        ),
        migrations.CreateModel(
            name='UsagePart',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hour', models.DateTimeField()),
                ('account_id', models.BigIntegerField()),
                ('key_id', models.BigIntegerField()),
                ('answers', models.BigIntegerField()),
                ('assets', models.BigIntegerField()),
                ('latency_us', models.BigIntegerField(help_text='Of all of them together.')),
                ('latency_us_max', models.IntegerField()),
                ('month', models.IntegerField()),
                ('status', models.SmallIntegerField()),
                ('tier', models.SmallIntegerField()),
                ('source', models.SmallIntegerField()),
                ('protocol', models.SmallIntegerField()),
                ('endpoint', models.SmallIntegerField()),
                ('simulated', models.BooleanField()),
                ('asset', models.TextField()),
                ('exchange', models.TextField()),
                ('node', models.CharField(max_length=64)),
            ],
            options={
                'db_table': 'usage_parts',
            },
        ),
        migrations.CreateModel(
            name='Folding',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('folded_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'usage_folding',
                'constraints': [models.CheckConstraint(condition=models.Q(('pk', 1)), name='usage_folding_single')],
            },
        ),
        migrations.CreateModel(
            name='UsageSegment',
            fields=[
                ('id', models.AutoField(primary_key=True, serialize=False)),
                ('node', models.CharField(max_length=64)),
                ('name', models.CharField(max_length=32)),
                ('row', models.IntegerField(help_text='Of the counters: which process wrote it.')),
                ('created_ns', models.BigIntegerField()),
                ('boot_ns', models.BigIntegerField(help_text='When that process began.')),
                ('ended', models.IntegerField(help_text='How many places it has; empty: there may come more.', null=True)),
                ('entered', models.BigIntegerField()),
                ('left', models.BigIntegerField()),
                ('opened', models.BigIntegerField()),
                ('closed', models.BigIntegerField()),
                ('shed', models.BigIntegerField()),
                ('seen_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'usage_segments',
                'ordering': ('node', 'name'),
                'constraints': [models.UniqueConstraint(fields=('node', 'name'), name='usage_segments_once')],
            },
        ),
        migrations.CreateModel(
            name='UsageInterval',
            fields=[
                ('pk', models.CompositePrimaryKey('segment_id', 'start', blank=True, editable=False, primary_key=True, serialize=False)),
                ('start', models.IntegerField()),
                ('end', models.IntegerField(db_column='end_')),
                ('rows', models.IntegerField()),
                ('damaged', models.IntegerField(help_text='Places in which there was no whole record.')),
                ('written_at', models.DateTimeField()),
                ('segment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='intervals', to='telemetry.usagesegment')),
            ],
            options={
                'db_table': 'usage_ledger',
                'ordering': ('segment_id', 'start'),
                'constraints': [models.CheckConstraint(condition=models.Q(('end__gt', models.F('start')), ('start__gte', 0)), name='usage_ledger_goes_on'), models.CheckConstraint(condition=models.Q(('damaged__gte', 0), ('end', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('start'), '+', models.F('rows')), '+', models.F('damaged'))), ('rows__gte', 0)), name='usage_ledger_adds_up')],
            },
        ),
        migrations.RunPython(tune, migrations.RunPython.noop),
        *(
            migrations.RunSQL(f"CREATE VIEW {name} AS {query}", f"DROP VIEW {name}")
            for name, query in VIEWS.items()
        ),
    ]
