"""`manage.py firstadmin`: the administrator a new node starts with."""

import argparse
import json
import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

NAME = "admin"


class Command(BaseCommand):
    help = (
        "Create the first administrator and print the password, which is kept nowhere. "
        "Does nothing when there is an administrator."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help='print {"username": …, "password": …}')

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's own signature
        users = get_user_model()
        if users.objects.filter(is_superuser=True).exists():
            return
        password = secrets.token_urlsafe(15)
        name = NAME if not users.objects.filter(username=NAME).exists() else f"{NAME}-{secrets.token_hex(2)}"
        users.objects.create_superuser(name, email="", password=password)
        if options["json"]:
            self.stdout.write(json.dumps({"username": name, "password": password}))
        else:
            self.stdout.write(
                f"Command centre: sign in as {name} with the password {password} (shown only now)."
            )
