"""Progress in the log of a long stage."""

import logging
import time

import pytest

from workflow_scripts.core.stage import progress


def test_parts_pass_unchanged_and_the_remaining_time_is_told(caplog):
    caplog.set_level(logging.INFO)
    passed = []
    for part in progress(iter("abcd"), 4, what="letters", every_s=0):
        time.sleep(0.01)
        passed.append(part)
    assert passed == list("abcd")
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "1 of 4 letters (25 %)",
        "2 of 4 letters (50 %)",
        "3 of 4 letters (75 %)",
    ]
    assert all("left" in record.message for record in caplog.records)


def test_short_stages_log_none_and_failures_come_through(caplog):
    caplog.set_level(logging.INFO)

    def broken():
        yield 1
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        list(progress(broken(), 2, what="files"))
    assert not caplog.records
