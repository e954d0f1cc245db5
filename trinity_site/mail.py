"""Mail where there is no mail server: a file each in the data folder, and a copy in the log."""

import logging
from collections.abc import Sequence

from django.core.mail import EmailMessage
from django.core.mail.backends.filebased import EmailBackend

logger = logging.getLogger(__name__)


class FolderAndLog(EmailBackend):
    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        for message in email_messages:
            logger.info("Mail to %s: %s\n%s", ", ".join(message.to), message.subject, message.body)
        return super().send_messages(email_messages)
