"""A process around one shell: logging, signals, exit status."""

import faulthandler
import gc
import logging
import signal
import sys
from collections.abc import Callable
from typing import Final

import gevent

from neo_common.errors import ConfigError, NeoError
from neo_common.runtime import logs
from neo_common.runtime.shell import EXIT_CRASH, EXIT_OK, Shell

EXIT_CONFIG: Final = 2
"""The operator must edit something: starting again does not help."""

_SWITCH_S: Final = 0.5e-3
"""A native thread that computes lets the hub go on after so long, not after Python's 5 ms: several commits."""
_YOUNG: Final = 20_000
"""New objects between two looks for cycles among them, of which the daemons make few."""

log = logging.getLogger("neo.daemon")

__all__ = ["EXIT_CONFIG", "EXIT_CRASH", "EXIT_OK", "run"]


def run(make_shell: Callable[[], Shell], *, name: str = "-", level: str = "INFO", as_json: bool = False) -> int:
    """Run the shell that *make_shell* returns until it stops; return the exit status.

    SIGTERM and SIGINT stop it cleanly; a second one at once. *name* is the node, for the log.
    """
    logs.set_up(name, level, as_json)
    faulthandler.enable()  # a crash in C says where it was, too
    try:
        shell = make_shell()
    except ConfigError as error:
        log.error("%s", error)
        return EXIT_CONFIG
    except NeoError as error:
        log.error("cannot start: %s", error)
        return EXIT_CRASH
    sys.setswitchinterval(_SWITCH_S)
    # What has been made until now stays: to go through all of it again and again would be pauses of 10 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
    asked: list[int] = []

    def stop(number: int) -> None:
        asked.append(number)
        reason = signal.Signals(number).name
        log.info("%s", reason)
        if len(asked) == 1:
            shell.terminate(reason)
        else:
            shell.stop(EXIT_OK, f"{reason} again")

    handlers = [gevent.signal_handler(number, stop, number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        return shell.run()
    except ConfigError as error:
        log.error("%s", error)
        return EXIT_CONFIG
    finally:
        for handler in handlers:
            handler.cancel()
