"""A process around one shell: logging, signals, exit status."""

import faulthandler
import logging
import signal
from collections.abc import Callable
from typing import Final

import gevent

from neo_common.errors import ConfigError, NeoError
from neo_common.runtime import logs
from neo_common.runtime.shell import EXIT_CRASH, EXIT_OK, Shell

EXIT_CONFIG: Final = 2
"""The operator must edit something: starting again does not help."""

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
