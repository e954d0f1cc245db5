"""Application configuration of the exchanges."""

from django.apps import AppConfig


class ExchangesConfig(AppConfig):
    name = "exchanges"
    verbose_name = "Exchanges"

    def ready(self) -> None:
        from exchanges import checks  # noqa: F401 (registers them; needs the models, which are loaded by now)
