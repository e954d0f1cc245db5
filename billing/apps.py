"""Application configuration of billing: plans, accounts, keys."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Billing"

    def ready(self) -> None:
        from billing import checks, watch  # noqa: F401 (they register themselves; the models are loaded by now)
