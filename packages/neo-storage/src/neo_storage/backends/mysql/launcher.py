"""`python launcher.py PID_FILE PARENT PROGRAM ARGUMENT...`: becomes PROGRAM, having written down its process id.

Run by `managed`, as a file and not as a module: it imports nothing of ours and is there in 20 ms. The id is written by
the process itself, before it is the server, so that there is no server whose id is not known. On Linux the kernel sends
SIGTERM when the thread that watches it, and so the storage, has died; elsewhere the next start of the storage finds it.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: Sequence[str]) -> None:
    """Never return."""
    pid_file, parent, *command = arguments
    descriptor = os.open(pid_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(descriptor, b"%d\n" % os.getpid())
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the storage that wanted this server is gone")  # it died before the kernel knew whom to tell
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and that would be inherited
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
