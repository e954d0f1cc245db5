"""`manage.py apikey`: keys made, rotated, revoked and listed at the terminal."""

import json
import sys
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone

from billing import services
from billing.authors import Author, Door
from billing.exceptions import AccountOnOtherPlan, BillingError
from billing.models import SCOPES, Account, ApiKey, KeyQuerySet
from billing.services import OVERLAP_H, NewKey
from billing.usage import month_of
from telemetry.commands import ExplainedCommand

AUTHOR = Author(Door.COMMAND)
FIRST_NAME = "Demo key"
FIRST_PLAN = "pro"
EXAMPLES = """examples:
  manage.py apikey create --plan pro --email ada@example.com
  manage.py apikey create --plan enterprise --name "price bot" --network 192.0.2.0/24 --scope prices --json
  manage.py apikey list --email ada@example.com
  manage.py apikey rotate tb_live_3fZk --overlap 48
  manage.py apikey revoke 17
  manage.py apikey revoke - < leaked-key.txt

A key is shown once, when it is made. KEY is its number or its first characters; - reads the whole key from
standard input, so that it is in no history of commands. Without --email a key belongs to this node's own
account for its plan, with all others made so: in reports each of them sees the usage of all."""


class Command(ExplainedCommand):
    help = "Make, rotate, revoke and list API keys."
    examples = EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a key and show it, this once")
        create.add_argument(
            "--plan", required=True, help="free, pro, enterprise, unlimited, lifetime, partner …"
        )
        create.add_argument("--email", help="whose key it is; the account is made where there is none")
        create.add_argument(
            "--change-plan", action="store_true", help="put an account that exists on the plan"
        )
        create.add_argument("--name", default="Key", help='what it is for (default: "Key")')
        create.add_argument("--network", action="append", default=[], metavar="CIDR", help="may be repeated")
        create.add_argument("--scope", action="append", choices=SCOPES, help="may be repeated (default: all)")
        rotate = actions.add_parser("rotate", help="make a key's successor and show it, this once")
        rotate.add_argument(
            "--overlap",
            type=int,
            default=OVERLAP_H,
            metavar="HOURS",
            help="that the old key stays valid (default: 24)",
        )
        revoke = actions.add_parser("revoke", help="refuse a key from now on, for good")
        for one in (rotate, revoke):
            one.add_argument(
                "key", metavar="KEY", help="its number, its first characters, or - for standard input"
            )
        rows = actions.add_parser("list", help="show keys, without their texts")
        rows.add_argument("--email", help="only those of this account")
        rows.add_argument("--all", action="store_true", help="revoked and expired ones too")
        first = actions.add_parser("first", help="make a demo key, only where there is no key at all")
        for one in (create, rotate, revoke, rows, first):
            one.add_argument("--json", action="store_true", help="one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's own signature
        actions: dict[str, Callable[[dict[str, Any]], None]] = {
            "create": self.create,
            "rotate": self.rotate,
            "revoke": self.revoke,
            "list": self.list_rows,
            "first": self.first,
        }
        try:
            actions[options["action"]](options)
        except AccountOnOtherPlan as error:
            raise CommandError(
                f"{error}: leave it there with --plan {error.plan}, or add --change-plan."
            ) from error
        except BillingError as error:
            raise CommandError(f"This cannot be done: {error}.") from error
        except DatabaseError as error:
            raise CommandError(f"The database does not answer: {error}. Has `migrate` been run?") from error

    def create(self, options: dict[str, Any]) -> None:  # Any: argparse's own, as below
        email = (options["email"] or f"this-node-{options['plan']}").lower()
        account = services.account_for(
            email=email, plan=options["plan"], author=AUTHOR, change_plan=options["change_plan"]
        )
        made = services.create_key(
            account=account,
            name=options["name"],
            author=AUTHOR,
            scopes=options["scope"] or SCOPES,
            networks=options["network"],
        )
        self.show(made, as_json=options["json"])

    def rotate(self, options: dict[str, Any]) -> None:
        made = services.rotate_key(key=_named(options["key"]), author=AUTHOR, overlap_h=options["overlap"])
        self.show(made, as_json=options["json"])

    def revoke(self, options: dict[str, Any]) -> None:
        key = services.revoke_key(key=_named(options["key"]), author=AUTHOR)
        self.write([f"{key} is revoked."], _document(key), as_json=options["json"])

    def list_rows(self, options: dict[str, Any]) -> None:
        rows: KeyQuerySet = ApiKey.objects.all() if options["all"] else ApiKey.objects.live()
        if options["email"]:
            rows = rows.of(_account(options["email"].lower()))
        keys = list(
            rows.with_counts(month_of(timezone.now())).select_related("account__user", "account__plan")
        )
        documents = [{**_document(key), "used": key.used} for key in keys]  # type: ignore[attr-defined]  # annotated
        self.write([_line(document) for document in documents], documents, as_json=options["json"])

    def first(self, options: dict[str, Any]) -> None:
        made = services.first_key(name=FIRST_NAME, plan=FIRST_PLAN, author=AUTHOR)
        if made and options["json"]:
            self.show(made, as_json=True)
        elif made:
            self.stdout.write(f"Demo key, on the plan {FIRST_PLAN} (shown only now):")
            self.stdout.write(f"  export TRINITY_KEY={made.text}")

    def show(self, made: NewKey, *, as_json: bool) -> None:
        key, document = made.key, {"key": made.text, **_document(made.key)}
        lines = [
            made.text,
            f"{key.name}, number {key.pk}, of {key.account} on {key.account.plan}. Shown only now.",
        ]
        self.write(lines, document, as_json=as_json)

    def write(self, lines: list[str], document: object, *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(document, ensure_ascii=False))
        else:
            self.stdout.writelines(f"{line}\n" for line in lines)


def _named(name: str) -> ApiKey:
    return services.find_key(sys.stdin.read() if name == "-" else name)


def _account(email: str) -> Account:
    account = Account.objects.filter(user__username=email).first()
    if account is None:
        raise CommandError(f"There is no account of {email}.")
    return account


def _document(key: ApiKey) -> dict[str, Any]:  # Any: JSON
    return {
        "id": key.pk,
        "prefix": key.prefix,
        "name": key.name,
        "account": str(key.account),
        "plan": key.account.plan.name,
        "state": key.state,
        "scopes": key.scopes,
        "networks": key.networks,
        "created_at": _moment(key.created_at),
        "expires_at": _moment(key.expires_at),
        "last_used_at": _moment(key.last_used_at),
    }


def _moment(moment: Any) -> str | None:  # Any: a date and time, or None
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def _line(document: dict[str, Any]) -> str:  # Any: JSON
    state, account, plan = document["state"], document["account"], document["plan"]
    known = f"{document['id']:>6} {document['prefix']}… {state:<8} {plan:<11} {document['used']:>9,}"
    return f"{known}  {account}: {document['name']}"
