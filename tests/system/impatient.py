"""`manage.py`, but what the ledger does not have after two seconds is sent again, and not after a minute."""

import os
import sys

from django.core.management import execute_from_command_line

from telemetry import packing

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trinity_site.settings.dev")
    packing.PATIENCE_NS = 2_000_000_000
    packing.MOST_DOUBLINGS = 1
    execute_from_command_line(sys.argv)
