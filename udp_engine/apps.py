"""Application configuration of the UDP engine and its stress client."""

from django.apps import AppConfig


class UdpEngineConfig(AppConfig):
    name = "udp_engine"
    verbose_name = "UDP engine"

    def ready(self) -> None:
        from udp_engine import checks  # noqa: F401 (registers them)
