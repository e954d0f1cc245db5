"""JSON endpoints of the exchanges, beside the command centre's pages."""

from django.urls import path

from exchanges import views

urlpatterns = [
    path("exchange-feeds", views.feeds, name="exchange-feeds"),
    path("exchange-feeds/save", views.feed_save, name="exchange-feeds-save"),
    path("exchange-feeds/toggle", views.feed_toggle, name="exchange-feeds-toggle"),
    path("exchange-assets", views.assets, name="exchange-assets"),
    path("exchange-assets/save", views.assets_save, name="exchange-assets-save"),
]
