"""Addresses of the site."""

from django.contrib import admin
from django.urls import include, path

from trinity_site import stress, usage_pages, views

urlpatterns = [
    path("", views.home, name="home"),
    path("docs", views.docs, name="docs"),
    path("status", views.status, name="status"),
    path("account/", include("billing.urls")),
    # JSON before the pages, which answer to everything below admin/
    path("admin/", include("exchanges.urls")),
    path("admin/stress-stats", stress.stats, name="stress-stats"),
    path("admin/stress-reset", stress.reset, name="stress-reset"),
    path("admin/usage/overview/", admin.site.admin_view(usage_pages.overview), name="usage-overview"),
    path("admin/usage/reconcile/", usage_pages.reconcile, name="usage-reconcile"),
    path("admin/", admin.site.urls),
]

handler404 = "trinity_site.views.not_found"
handler500 = "trinity_site.views.server_error"
handler429 = "trinity_site.views.too_many"
