import logging
from pathlib import Path

import pytest
from django.core.mail import EmailMessage, get_connection
from django.test import override_settings


def test_mail_without_a_server_is_in_the_folder_and_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with override_settings(EMAIL_FILE_PATH=tmp_path / "mail"):
        connection = get_connection("trinity_site.mail.FolderAndLog")
        EmailMessage("Your code", "ABCD-EFGH", to=["ada@example.com"], connection=connection).send()
    (file,) = (tmp_path / "mail").iterdir()
    assert b"ABCD-EFGH" in file.read_bytes()
    assert "Mail to ada@example.com: Your code" in caplog.text and "ABCD-EFGH" in caplog.text
