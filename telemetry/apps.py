"""Application configuration of telemetry: usage, from the answer to the report."""

from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    name = "telemetry"
    verbose_name = "Usage"
