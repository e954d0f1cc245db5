"""Application configuration of telemetry: usage, from the answer to the report."""

from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    name = "telemetry"
    verbose_name = "Usage"

    def ready(self) -> None:
        from telemetry import checks  # noqa: F401 (registers them)
