"""Processor time of other processes, as the system reports it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.load.processor import is_counted, session_s

_WORK = "while True: pass"


@pytest.mark.system
@pytest.mark.skipif(not is_counted(), reason="this system has no /proc")
def test_all_processes_of_a_session_are_counted() -> None:
    """The session's leader only waits, so what is counted is its child's."""
    fork = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_WORK!r}])"
    with subprocess.Popen([sys.executable, "-c", fork], start_new_session=True) as leader:
        try:
            deadline = time.monotonic() + 60
            while session_s(leader.pid) < 0.5:
                assert time.monotonic() < deadline, "a busy process seems to use no time"
                time.sleep(0.05)
        finally:
            os.killpg(leader.pid, signal.SIGKILL)
