#!/bin/sh
# Unpack a MySQL server for `make test` below the folder $1 (.venv/servers), where its packages can be had: those of Ubuntu,
# or of Debian's unstable, as no other Debian has any. Nothing is installed: apt works with folders of its own, and the
# server runs with the libraries, and the C library, that come with it.
# It never fails, and ends within LIMIT_S: without it the tests of MySQL are not there. It says so in one line.
set -u
umask 022

LIMIT_S=${LIMIT_S:-300}
folder=$1
target=$folder/mysql
missing=$folder/mysql.missing

is_mysql() {
    case $("$1" --no-defaults --version 2>/dev/null) in
    *MariaDB*) return 1 ;;
    *Ver*) return 0 ;;
    esac
    return 1
}

if [ "${2:-}" != fetch ]; then
    path=$(PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v mysqld || true)
    if { [ -n "$path" ] && is_mysql "$path"; } || [ -x "$target/mysqld" ]; then
        exit 0
    fi
    # A machine without network does not wait for it each time: once a day.
    [ -z "$(find "$missing" -mtime -1 2>/dev/null)" ] || exit 0
    mkdir -p "$folder"
    said=$(timeout -k 5 "$LIMIT_S" "$0" "$folder" fetch 2>"$missing.log")
    status=$?
    rm -rf "$folder/mysql.apt" "$folder/mysql.new"
    if [ "$status" = 0 ]; then
        rm -f "$missing" "$missing.log"
    else
        [ "$status" != 124 ] || said="its packages did not come within $LIMIT_S s"
        echo "MySQL itself is not tested here: ${said:-see $missing.log}" | tee "$missing" >&2
    fi
    exit 0
fi

refuse() {
    echo "$1"
    exit 1
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || refuse "it comes from packages of Debian and Ubuntu only"
apt=$(mkdir -p "$folder/mysql.apt" && cd "$folder/mysql.apt" && pwd) || refuse "$folder cannot be written"
new=$folder/mysql.new
rm -rf "$new"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/empty" "$new/root"
: >"$apt/status"
from=
if grep -q '^ID=debian' /etc/os-release; then
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] http://deb.debian.org/debian sid main" >"$apt/sources.list"
    from="-o Dir::Etc::SourceList=$apt/sources.list -o Dir::Etc::SourceParts=$apt/empty"
fi
# With an empty list of what is installed, it fetches all that the server needs.
quiet_apt() {
    apt-get -q $from -o Dir::State="$apt" -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" \
        -o Dir::Cache="$apt/cache" -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$apt/empty" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=1 \
        -o Acquire::http::Timeout=20 -o APT::Install-Recommends=0 "$@" >&2
}
quiet_apt update
for package in mysql-server-core-8.4 mysql-server-core-8.0 mysql-server-core none; do
    [ "$package" != none ] || refuse "no package of it could be fetched ($missing.log)"
    echo "-- $package" >&2
    quiet_apt install --print-uris -y "$package" && quiet_apt install --download-only -y "$package" && break
done
for file in "$apt"/cache/archives/*.deb; do
    case ${file##*/} in
    perl* | libperl*) continue ;; # for programs beside the server
    esac
    dpkg-deb --fsys-tarfile "$file" | tar -x -C "$new/root" --no-same-owner \
        --exclude=./usr/bin --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale \
        --exclude=gconv --exclude=./etc || refuse "${file##*/} could not be unpacked"
done
loader=$(cd "$new" && ls -d root/lib64/ld-linux-* root/usr/lib64/ld-linux-* root/lib/ld-linux-* root/usr/lib/ld-linux-* 2>/dev/null | head -n 1)
libraries=$(cd "$new" && ls -d root/lib/*-linux-gnu* root/usr/lib/*-linux-gnu* root/usr/lib/mysql/private 2>/dev/null | sed 's|^|$here/|' | paste -sd: -)
cat >"$new/mysqld" <<END
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
exec "\$here/$loader" --library-path "$libraries" "\$here/root/usr/sbin/mysqld" "\$@" \\
    --basedir="\$here/root/usr" --lc-messages-dir="\$here/root/usr/share/mysql" --plugin-dir="\$here/root/usr/lib/mysql/plugin"
END
chmod 755 "$new/mysqld"
"$new/mysqld" --no-defaults --version >&2 || refuse "it does not run here ($missing.log)"
is_mysql "$new/mysqld" || refuse "the package has another server ($missing.log)"
rm -rf "$target"
mv "$new" "$target"
