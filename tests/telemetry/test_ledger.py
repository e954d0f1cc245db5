"""Usage logs into both kinds of database, each exactly once."""

from __future__ import annotations

import pytest

from telemetry.ledger import SegmentState, Written, covered, write_envelopes
from telemetry.models import UsageLog
from tests.telemetry.usage import NODE, SEGMENT, make_envelope, make_logs, make_records

pytestmark = pytest.mark.django_db(databases=["default", "embedded"])
both = pytest.mark.parametrize("using", ["default", "embedded"])


@both
def test_rows_are_what_the_records_were(using: str) -> None:
    logs = make_logs(100)
    records = make_records(logs)
    assert write_envelopes([make_envelope(records)], using=using) == Written(100, 0, 0)
    rows = UsageLog.objects.using(using).order_by("sequence")
    assert [(row.sequence, row.key_id, row.price) for row in rows] == [
        (number + 1, log.key_id, log.price) for number, log in enumerate(logs)
    ]
    assert covered(NODE, [SEGMENT, "1-1"], using=using) == {
        SEGMENT: SegmentState(((0, 100),)),
        "1-1": SegmentState(),
    }
