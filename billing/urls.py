"""The account pages. Of allauth's views only those in use: there are no passwords to set or to reset."""

from allauth.account import views as signin
from django.urls import include, path
from django.views.generic import RedirectView

from billing import views
from billing.signin import StaffLoginView

urlpatterns = [
    path("", views.account, name="account"),
    path("usage/", views.usage, name="account_usage"),
    path("usage/<slug:format>/", views.usage_export, name="account_usage_export"),
    path("keys/new/", views.create, name="account_key_create"),
    path("keys/<int:key_id>/", views.change, name="account_key_change"),
    path("keys/<int:key_id>/rotate/", views.rotate, name="account_key_rotate"),
    path("keys/<int:key_id>/revoke/", views.revoke, name="account_key_revoke"),
    path("login/", signin.login, name="account_login"),
    path("login/code/", signin.confirm_login_code, name="account_confirm_login_code"),
    path(
        "login/other/", RedirectView.as_view(pattern_name="account_login"), name="account_request_login_code"
    ),
    path("login/staff/", StaffLoginView.as_view(), name="account_staff_login"),
    path("signup/", signin.signup, name="account_signup"),
    path("signup/code/", signin.email_verification_sent, name="account_email_verification_sent"),
    path("logout/", signin.logout, name="account_logout"),
    path("inactive/", signin.account_inactive, name="account_inactive"),
    path("reauthenticate/", signin.reauthenticate, name="account_reauthenticate"),
    path("second-factor/", include("allauth.mfa.urls")),
]
