"""Envelopes that were set aside, in the command centre: what was wrong with them, and trying them again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from telemetry.inbox import route
from telemetry.ledger import replay
from telemetry.models import Quarantined


class ReplayedFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [("waiting", "Set aside"), ("replayed", "Replayed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Quarantined]) -> QuerySet[Quarantined]:
        if self.value() is None:
            return queryset
        return queryset.filter(replayed_at__isnull=self.value() == "waiting")


@admin.register(Quarantined)
class QuarantinedAdmin(ModelAdmin):
    list_display = ("received_at", "reason", "size", "tries", "state", "replayed_at")
    list_filter = (ReplayedFilter,)
    search_fields = ("reason",)
    fields = ("received_at", "reason", "size", "tries", "replayed_at")
    actions = ("replay",)
    list_fullwidth = True

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Quarantined | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Quarantined | None = None) -> bool:
        return False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("telemetry.change_quarantined"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quarantined]:
        return Quarantined.objects.with_sizes().defer("document")

    @admin.action(description="Try to write them again", permissions=("replay",))
    def replay(self, request: HttpRequest, queryset: QuerySet[Quarantined]) -> None:
        ids = list(queryset.values_list("pk", flat=True))
        try:
            refused = replay(ids, route)
        except DatabaseError as error:
            self.message_user(request, f"The database does not take them now: {error}", messages.ERROR)
            return
        if len(refused) < len(ids):
            self.message_user(request, f"{len(ids) - len(refused)} written.", messages.SUCCESS)
        if refused:
            self.message_user(request, f"{len(refused)} still cannot be written.", messages.WARNING)

    @display(description="Bytes", ordering="size")
    def size(self, row: Any) -> str:  # Any: with the column of `with_sizes`
        return f"{row.size:,}"

    @display(description="State", label={"set aside": "danger", "replayed": "success"})
    def state(self, row: Quarantined) -> str:
        return row.state
