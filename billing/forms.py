"""Forms about keys, for customers and the staff; widgets are chosen by whoever shows them."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms

from billing.models import SCOPES, ApiKey
from billing.networks import MOST_NETWORKS, NetworkError, parse_networks
from billing.services import MOST_OVERLAP_H, OVERLAP_H
from telemetry.periods import PERIODS

SCOPE_CHOICES = [("prices", "Prices"), ("reports", "Reports")]
DEFAULT_PERIOD = "7d"


class NetworksField(forms.CharField):
    """One network a line; an empty field allows every address."""

    widget = forms.Textarea

    def __init__(self, **options: Any) -> None:  # Any: Django's own
        options = {
            "required": False,
            "max_length": 1_000,
            "help_text": f"One a line, at most {MOST_NETWORKS}: 192.0.2.7, 2001:db8::/32. Empty allows all.",
            **options,
        }
        super().__init__(**options)

    def prepare_value(self, value: Any) -> Any:  # Any: a list from the row, text from the browser
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        text: str = super().clean(value)
        try:
            return parse_networks(text.replace(",", " ").split())
        except NetworkError as error:
            raise forms.ValidationError(str(error)) from error


class KeyForm(forms.Form):
    """What a customer may say about a key."""

    name = forms.CharField(max_length=60, help_text="For you: where the key is used.")
    scopes = forms.MultipleChoiceField(
        label="May ask for", choices=SCOPE_CHOICES, initial=SCOPES, widget=forms.CheckboxSelectMultiple
    )
    networks = NetworksField(label="Allowed networks")

    @classmethod
    def of(cls, key: ApiKey) -> "KeyForm":
        return cls(initial={"name": key.name, "scopes": key.scopes, "networks": key.networks})

    def refuse(self, errors: dict[str, list[str]]) -> None:
        """Show what a service refused beside the fields it is about."""
        for field, messages in errors.items():
            self.add_error(field if field in self.fields else None, messages)


class RotateForm(forms.Form):
    overlap_h = forms.IntegerField(
        label="Hours that the old key stays valid",
        initial=OVERLAP_H,
        min_value=0,
        max_value=MOST_OVERLAP_H,
        help_text="0 ends it at once.",
    )


class UsageForm(forms.Form):
    """Which period and which key a page is about; the default takes the place of what is no choice."""

    defaults: ClassVar = {"period": DEFAULT_PERIOD, "key": ""}

    period = forms.ChoiceField(
        choices=[(name, period.title) for name, period in PERIODS.items()],
        error_messages=dict.fromkeys(
            ("invalid_choice", "required"),
            f"There is no such period. This is: {PERIODS[DEFAULT_PERIOD].title}.",
        ),
    )
    key = forms.ChoiceField(
        required=False, error_messages={"invalid_choice": "You have no such key. This is: all keys."}
    )

    def __init__(self, data: Any, keys: Iterable[ApiKey]) -> None:  # Any: what a browser sends
        wanted = {name: data.get(name, default) for name, default in self.defaults.items()}
        super().__init__(wanted, auto_id="usage_%s")
        named = [(str(key.pk), f"{key.name} ({key.prefix}…)") for key in keys]
        choice = self.fields["key"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [("", "All keys"), *named]

    def clean(self) -> None:
        """Let the fields show what is shown."""
        self.data = {**self.data, **{name: self.defaults[name] for name in self.errors}}
