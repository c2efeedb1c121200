"""Python runs this first where this folder is on the path: the clock of a host that is off.

The time goes on as always, from another moment; clocks that only count on are left alone.
"""

import os
import time

import time_machine

time_machine.travel(time.time() + float(os.environ["CLOCK_OFF_BY_S"]), tick=True).start()
