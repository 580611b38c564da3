#!/bin/sh
# Install the database servers that `make test` runs privately, and what mysqlclient is compiled with, where they are missing.
set -eu

missing() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin"
    command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || echo mariadb-server
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || echo postgresql
    command -v pkg-config >/dev/null || echo pkg-config
    pkg-config --exists libmariadb 2>/dev/null || pkg-config --exists mysqlclient 2>/dev/null || echo libmariadb-dev
}

packages=$(missing)
[ -n "$packages" ] || exit 0

command="apt-get install -y --no-install-recommends $(echo $packages)"
if ! command -v apt-get >/dev/null; then
    echo "The tests of the back ends need MariaDB, PostgreSQL and the headers of libmariadb. On Debian and Ubuntu: $command" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    echo "The tests of the back ends need servers that are not installed. Run: sudo $command" >&2
    exit 1
fi
echo "installing for the tests of the back ends:" $packages
export DEBIAN_FRONTEND=noninteractive
if ! $sudo env DEBIAN_FRONTEND=noninteractive $command >/dev/null 2>&1; then
    $sudo apt-get update >/dev/null
    $sudo env DEBIAN_FRONTEND=noninteractive $command >/dev/null
fi
left=$(missing)
[ -z "$left" ] || { echo "still missing after installing: $left" >&2; exit 1; }
