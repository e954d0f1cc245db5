"""What was set aside, and the ledger, in the command centre. Both are records of what happened."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from telemetry.inbox import route
from telemetry.ledger import replay
from telemetry.models import Quarantined, UsageInterval, UsageSegment
from telemetry.preview import preview

if TYPE_CHECKING:

    class SegmentRow(UsageSegment):
        """A segment as the list shows it."""

        covered: int
        rows: int
        lost: int


logger = logging.getLogger(__name__)


class RecordAdmin(ModelAdmin):
    """Pages of rows that nobody writes by hand."""

    list_fullwidth = True
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # Any: as Django has it
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


# What was set aside


class ReplayedFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # Any: Django's own
        return [("waiting", "set aside"), ("replayed", "replayed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Quarantined]) -> QuerySet[Quarantined]:
        if self.value() is None:
            return queryset
        return queryset.filter(replayed_at__isnull=self.value() == "waiting")


@admin.register(Quarantined)
class QuarantinedAdmin(RecordAdmin):
    list_display = ("received_at", "reason", "size", "tries", "state", "replayed_at")
    list_filter = (ReplayedFilter,)
    search_fields = ("reason",)
    actions = ("replay",)
    actions_detail = ("open_replay",)
    fields = ("received_at", "reason", "size", "tries", "state", "replayed_at")
    change_form_outer_after_template = "telemetry/document.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quarantined]:
        return super().get_queryset(request).with_sizes().defer("document")

    def has_delete_permission(self, request: HttpRequest, obj: Quarantined | None = None) -> bool:
        """Allow it one by one, of what is in the database by now: of anything else the only copy is here."""
        is_written = obj is not None and obj.replayed_at is not None
        return is_written and bool(request.user.has_perm("telemetry.delete_quarantined"))

    def has_replay_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("telemetry.change_quarantined"))

    @display(description="Size", ordering="size")
    def size(self, row: Quarantined) -> str:
        return filesizeformat(row.size)  # type: ignore[attr-defined]  # an annotation

    @display(
        description="State", ordering="replayed_at", label={"replayed": "success", "set aside": "danger"}
    )
    def state(self, row: Quarantined) -> str:
        return row.state

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Quarantined | None:
        row: Quarantined | None = super().get_object(request, object_id, from_field)
        if row is not None:
            row.preview = preview(bytes(row.document))  # type: ignore[attr-defined]  # for the template
        return row

    def delete_model(self, request: HttpRequest, obj: Quarantined) -> None:
        """Delete it unless it has come again meanwhile."""
        Quarantined.objects.filter(pk=obj.pk, replayed_at__isnull=False).delete()

    # Replaying

    @admin.action(description="Replay", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Quarantined]) -> None:
        done = sum(self._replay(request, row) for row in queryset.order_by("pk"))
        if done:
            self.message_user(request, f"{done} written to the database.", messages.SUCCESS)

    @action(description="Replay", icon="replay", url_path="open-replay", permissions=["replay"])
    def open_replay(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:telemetry_quarantined_replay", args=[object_id]))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.replay_view)
        return [path("<int:pk>/replay/", view, name="telemetry_quarantined_replay"), *super().get_urls()]

    def replay_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask once more, and write it."""
        row = self.get_object(request, str(pk))
        if row is None:
            raise Http404
        if not self.has_replay_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            context = {**self.admin_site.each_context(request), "opts": self.opts, "original": row}
            return TemplateResponse(request, "telemetry/replay.html", {**context, "title": "Replay"})
        if self._replay(request, row):
            self.message_user(request, "It is written to the database.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:telemetry_quarantined_change", args=[pk]))

    def _replay(self, request: HttpRequest, row: Quarantined) -> bool:
        try:
            refused = replay([row.pk], route).get(row.pk)
        except Exception as error:  # whatever it is: the page says it, and the others have their turn
            logger.exception("Replaying what was set aside failed")
            refused = f"{type(error).__name__}: {error}"
        if refused is None:
            self.log_change(request, row, "Replayed.")
            return True
        self.message_user(request, f"{row.received_at:%Y-%m-%d %H:%M:%S}: {refused}", messages.ERROR)
        return False


# The ledger


def _ledger(column: Combinable) -> Combinable:
    """Add *column* up over a segment's intervals, only for the rows that a page shows."""
    rows = UsageInterval.objects.filter(segment_id=OuterRef("pk")).order_by().values("segment_id")
    return Coalesce(Subquery(rows.annotate(total=Sum(column)).values("total")), 0)


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # Any: Django's own
        return [(state, state) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UsageSegment]) -> QuerySet[UsageSegment]:
        return queryset.filter(STATES.get(self.value() or "", Q()))


STATES = {
    "whole": Q(ended__isnull=False, covered__gte=F("ended")),
    "incomplete": Q(ended__isnull=False, covered__lt=F("ended")),
    "open": Q(ended__isnull=True),
}


@admin.register(UsageSegment)
class UsageSegmentAdmin(RecordAdmin):
    list_display = ("title", "created_at", "places", "in_ledger", "logs", "damaged", "state", "seen_at")
    list_filter = ("node", StateFilter)
    search_fields = ("node", "name")
    ordering = ("-created_ns",)
    fields = (
        *("node", "name", "row", "created_at", "boot_at", "seen_at"),
        *("places", "in_ledger", "logs", "damaged", "state"),
    )
    change_form_outer_after_template = "telemetry/segment.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[UsageSegment]:
        return (
            super()
            .get_queryset(request)
            .annotate(
                covered=_ledger(F("end") - F("start")),
                rows=_ledger(F("rows")),
                lost=_ledger(F("damaged")),
            )
        )

    @display(description="Segment", ordering="name", header=True)
    def title(self, row: UsageSegment) -> list[str]:
        return [row.node, row.name]

    @display(description="Begun", ordering="created_ns")
    def created_at(self, row: UsageSegment) -> str:
        return _moment(row.created_ns)

    @display(description="Process began")
    def boot_at(self, row: UsageSegment) -> str:
        return _moment(row.boot_ns)

    @display(description="Places", ordering="ended")
    def places(self, row: UsageSegment) -> str:
        return "not told yet" if row.ended is None else f"{row.ended:,}"

    @display(description="In the ledger", ordering="covered")
    def in_ledger(self, row: SegmentRow) -> str:
        return f"{row.covered:,}"

    @display(description="Rows", ordering="rows")
    def logs(self, row: SegmentRow) -> str:
        return f"{row.rows:,}"

    @display(description="Damaged", ordering="lost")
    def damaged(self, row: SegmentRow) -> str:
        return f"{row.lost:,}"

    @display(description="State", label={"whole": "success", "incomplete": "danger", "open": "info"})
    def state(self, row: SegmentRow) -> str:
        """Say whether all of it is in the database; intervals do not overlap, so their sum tells."""
        if row.ended is None:
            return "open"
        return "whole" if row.covered >= row.ended else "incomplete"


def _moment(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
