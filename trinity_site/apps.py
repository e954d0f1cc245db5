"""The site's own application configuration, and the admin's with the command centre in it."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class TrinitySiteConfig(AppConfig):
    name = "trinity_site"
    default = True


class AdminConfig(admin_apps.AdminConfig):
    default = False
    default_site = "trinity_site.command_centre.CommandCentre"
