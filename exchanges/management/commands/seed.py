"""`manage.py seed`: the rows that the project comes with."""

from typing import Any

from django.core.management.base import BaseCommand

from billing.seeding import seed_plans
from exchanges.seeding import seed


class Command(BaseCommand):
    help = (
        "Load the six exchanges, their 150 assets, and the plans. Running it again adds what is new and "
        "changes nothing that somebody else has changed."
    )

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's own signature
        seeded, plans = seed(), seed_plans()
        if any(seeded) or plans:
            counts = f"{seeded.feeds} feeds, {seeded.listings} listings and {plans} plans"
            self.stdout.write(f"Seeded {counts}.")
        else:
            self.stdout.write("The seed rows are all there.")
