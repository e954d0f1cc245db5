"""The Trinity Beast Command Centre: the admin site itself. Apart from `admin.py`, which needs it to exist."""

from unfold.sites import UnfoldAdminSite


class CommandCentre(UnfoldAdminSite):
    site_title = "Trinity Beast Command Centre"
    site_header = "Trinity Beast Command Centre"
    index_title = "Now"
    index_template = "command_centre/index.html"
