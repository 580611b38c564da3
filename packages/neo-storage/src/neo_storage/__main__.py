"""`neostorage --config cluster.yaml --name s1 [--set section.key=value]`: a storage, in the foreground, until SIGTERM.

Exit status: 0 stopped cleanly; 1 failed (starting again replays the log, and may help); 2 the configuration is wrong.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import os
import sys
from collections.abc import Sequence

from neo_common.config.loader import load
from neo_common.credentials import credentials_of
from neo_common.errors import ConfigError
from neo_common.runtime import daemon
from neo_storage.making import make_backend
from neo_storage.shell import make_shell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(prog="neostorage", description="A storage of a NEO cluster, in the foreground.")
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration of the cluster (YAML)")
    parser.add_argument("--name", required=True, help="the name of this storage in it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. timeouts.lease=5s")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, os.environ, options.set)
        config.storage(options.name)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  the log is not set up before the configuration is read
        return daemon.EXIT_CONFIG
    return daemon.run(
        lambda: make_shell(
            config,
            options.name,
            lambda storage: make_backend(storage, os.environ),
            credentials_of(config, options.name, os.environ),
        ),
        name=options.name,
        level=config.logging.level,
        as_json=config.logging.format == "json",
    )


if __name__ == "__main__":
    sys.exit(main())
