"""A log file that cannot be written is named at the start, not passed over for ever."""

from pathlib import Path

import pytest

from orders.errors import SettingError
from orders.settings import LogSettings
from orders.telemetry import logs


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "no-folder").touch()
    settings = LogSettings(file=str(tmp_path / "no-folder" / "orders.log"))
    with pytest.raises(SettingError, match=r"ORDERS_LOG_FILE: cannot write"):
        logs.configure(settings, "test")
