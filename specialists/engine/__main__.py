"""`python -m specialists.engine FD`: an engine process, started by `client`; FD is its end of a Unix socket."""

import ctypes
import logging
import os
import signal
import socket
import sys

from specialists.engine.host import serve

_PR_SET_PDEATHSIG = 1


def main() -> None:
    logging.basicConfig(
        level=os.environ.get("COE_LOG_LEVEL", "info").upper(), format="%(levelname)s engine %(message)s"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when we end
    _die_with_parent()
    serve(socket.socket(fileno=int(sys.argv[1])), log=logging.getLogger("engine").debug)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere the closed socket has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
