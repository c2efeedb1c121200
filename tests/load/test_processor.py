"""What other processes use, as the system reports it."""

import os
import subprocess
import sys
import time

import pytest

from tests.load.processor import is_counted, own_bytes, used_s, written_bytes

_WORK = "import time\nwhile time.process_time() < 0.7: pass"
_PARENT = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {_WORK!r}], start_new_session=True)
time.sleep(600)
"""

pytestmark = pytest.mark.skipif(not is_counted(), reason="this system has no /proc")


@pytest.mark.system
def test_descendants_are_counted_whatever_their_session_and_even_if_they_have_ended() -> None:
    """The process itself only waits, so what is counted is its child's."""
    with subprocess.Popen([sys.executable, "-c", _PARENT]) as parent:
        try:
            deadline = time.monotonic() + 60
            while used_s(parent.pid) < 0.7:
                assert time.monotonic() < deadline, "a busy process seems to use no time"
                time.sleep(0.05)
            time.sleep(0.2)  # the child has ended by now
            assert used_s(parent.pid) >= 0.7
            assert own_bytes(parent.pid) > 2**20
            assert written_bytes(parent.pid) >= 0
        finally:
            parent.kill()


def test_ended_process_uses_nothing() -> None:
    """It may end while it is looked at."""
    pid = os.getpid() + 10_000_000  # above the system's largest
    assert used_s(pid) == written_bytes(pid) == own_bytes(pid) == 0
