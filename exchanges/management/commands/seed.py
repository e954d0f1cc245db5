"""`manage.py seed`: the rows that the project comes with."""

from typing import Any

from django.core.management.base import BaseCommand

from exchanges.seeding import seed


class Command(BaseCommand):
    help = (
        "Load the six exchanges and their 150 assets. Running it again adds what is new and changes nothing "
        "that somebody else has changed."
    )

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's own signature
        seeded = seed()
        if any(seeded):
            self.stdout.write(f"Seeded {seeded.feeds} feeds and {seeded.listings} listings.")
        else:
            self.stdout.write("The seed rows are all there.")
