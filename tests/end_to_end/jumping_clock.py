"""`coe` with a wall clock that jumps an hour ahead at SIGUSR1 and an hour back at SIGUSR2.

The clock is changed before anything of the gateway is imported, as if somebody had set the machine's. Each jump is
said on standard output, so that whoever sent the signal knows that it has happened.
"""

import os
import signal
import sys
import time

HOUR_SECONDS = 3600.0
_real_time, _real_time_ns = time.time, time.time_ns
_ahead_seconds = 0.0


def _jump(number: int, frame: object) -> None:
    global _ahead_seconds
    _ahead_seconds += HOUR_SECONDS if number == signal.SIGUSR1 else -HOUR_SECONDS
    os.write(1, f"jumped: {_ahead_seconds:g}\n".encode())


if __name__ == "__main__":
    time.time = lambda: _real_time() + _ahead_seconds
    time.time_ns = lambda: _real_time_ns() + int(_ahead_seconds * 1e9)
    signal.signal(signal.SIGUSR1, _jump)
    signal.signal(signal.SIGUSR2, _jump)
    from gateway.cli import main

    sys.argv[0] = "coe"
    main()
