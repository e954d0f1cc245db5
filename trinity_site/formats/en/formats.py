"""How pages write times that no template formats itself: by 24 hours, and in which zone."""

DATE_FORMAT = "Y-m-d"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "Y-m-d H:i:s e"
