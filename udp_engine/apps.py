"""Application configuration of the UDP engine and its stress client."""

from django.apps import AppConfig


class UdpEngineConfig(AppConfig):
    name = "udp_engine"
    verbose_name = "UDP engine"
