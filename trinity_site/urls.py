"""Addresses of the site."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", include("exchanges.urls")),  # before the pages, which answer to everything below admin/
    path("admin/", admin.site.urls),
]
