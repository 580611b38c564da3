"""neomaster: a master of a cluster. Runs in the foreground, stops cleanly on SIGTERM."""

from gevent import monkey

monkey.patch_all()

import argparse
import os
import sys
from collections.abc import Sequence

from neo_common.config.loader import load
from neo_common.credentials import credentials_of
from neo_common.errors import ConfigError
from neo_common.runtime.daemon import EXIT_CONFIG, run
from neo_master import __version__
from neo_master.shell import MasterShell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a master; return the exit status."""
    parser = argparse.ArgumentParser(prog="neomaster", description="A master of a NEO cluster.")
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration of the cluster")
    parser.add_argument("--name", required=True, help="the name of this master in it")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another value for a key, as timeouts.lease=5s"
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, os.environ, options.set)
    except ConfigError as error:
        sys.stderr.write(f"neomaster: {error}\n")
        return EXIT_CONFIG
    logging = config.logging
    return run(
        lambda: MasterShell(config, options.name, credentials_of(config, options.name, os.environ)),
        name=options.name,
        level=logging.level,
        as_json=logging.format == "json",
    )


if __name__ == "__main__":
    sys.exit(main())
