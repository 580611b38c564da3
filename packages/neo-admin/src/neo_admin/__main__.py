"""neoadmin: patches the standard library first, so that one program can be both the daemon and the command line."""

from gevent import monkey

monkey.patch_all()

import os
import sys

from neo_admin.cli import main as cli


def main() -> int:
    """Run neoadmin; return the exit status."""
    return cli.main(os.environ)


if __name__ == "__main__":
    sys.exit(main())
