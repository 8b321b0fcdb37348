#!/bin/sh
# Installs what pgyard's demo, tests and benchmarks need and this machine lacks. Says what it does, does nothing twice, and takes a moment
# when all is there.
#
#   scripts/setup.sh          what `make run` needs: PostgreSQL
#   scripts/setup.sh --tests  also what `make test` needs: Python packages in .venv, Node packages below tests/drivers/node
#   scripts/setup.sh --bench  also what `make bench` and `make bench-check` need: Python, valgrind
#   scripts/setup.sh --drivers  also what `make drivers` needs: Python with the module venv
#   scripts/setup.sh --regress  also what `make regress` needs: Python, unpackers, libpq's headers
#
# Works as root and as a user who may use sudo. PostgreSQL comes from the distribution (apt), without its default cluster.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo: $*"
    fi
}

apt_lists_are_fresh=no
apt_install() {
    command -v apt-get >/dev/null 2>&1 ||
        fail "please install $* with this system's package manager (apt-get was not found), and try again"
    say "installing $*"
    if [ "$apt_lists_are_fresh" = no ]; then
        as_root apt-get update -qq
        apt_lists_are_fresh=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The same places, in the same order, as in src/demo/programs.rs.
has_postgresql() {
    for directory in "${PGYARD_PG_BIN:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin \
        /usr/local/opt/postgresql@*/bin "$(pg_config --bindir 2>/dev/null || true)" "$(dirname "$(command -v initdb || echo /none/x)")"; do
        if [ -x "$directory/initdb" ] && [ -x "$directory/postgres" ] && [ -x "$directory/pg_basebackup" ] &&
            [ -x "$directory/psql" ] && [ -x "$directory/pgbench" ]; then
            return 0
        fi
    done
    return 1
}

install_postgresql() {
    has_postgresql && return 0
    # Debian would create and start a cluster on port 5432; nobody asked for one. The file is read when the server is installed.
    command -v apt-get >/dev/null 2>&1 && apt_install postgresql-common
    settings=/etc/postgresql-common/createcluster.conf
    if [ -f "$settings" ] && ! grep -q '^ *create_main_cluster *= *false' "$settings"; then
        say "telling $settings not to create a default cluster"
        if grep -q '^ *#* *create_main_cluster' "$settings"; then
            as_root sed -i 's/^ *#* *create_main_cluster.*/create_main_cluster = false/' "$settings"
        else
            echo 'create_main_cluster = false' | as_root tee -a "$settings" >/dev/null
        fi
    fi
    apt_install postgresql postgresql-contrib
    has_postgresql || fail "PostgreSQL was installed, but its programs are not where they should be; set PGYARD_PG_BIN"
}

# Compiling the cryptography that rustls uses takes a C compiler.
install_compiler() {
    command -v cc >/dev/null 2>&1 || apt_install gcc libc6-dev
    command -v cargo >/dev/null 2>&1 || fail "cargo was not found: install the Rust toolchain from https://rustup.rs"
}

install_python() {
    stamp=.venv/requirements.installed
    if [ -x .venv/bin/python ] && cmp -s tests/drivers/requirements.txt "$stamp"; then
        return 0
    fi
    # Debian's python3 has the module venv, but without python3-venv it cannot put pip into an environment.
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3 python3-venv
    say "making .venv with the packages of tests/drivers/requirements.txt"
    python3 -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/drivers/requirements.txt
    cp tests/drivers/requirements.txt "$stamp"
}

install_node() {
    folder=tests/drivers/node
    stamp=$folder/node_modules/package.json.installed
    if command -v node >/dev/null 2>&1 && cmp -s "$folder/package.json" "$stamp"; then
        return 0
    fi
    command -v node >/dev/null 2>&1 || apt_install nodejs
    command -v npm >/dev/null 2>&1 || apt_install npm
    say "installing the packages of $folder/package.json"
    # Versions are pinned in package.json. A lock file would name the registry of whoever wrote it.
    (cd "$folder" && npm install --no-package-lock --no-audit --no-fund --silent)
    cp "$folder/package.json" "$stamp"
}

install_bench() {
    command -v python3 >/dev/null 2>&1 || apt_install python3
    command -v valgrind >/dev/null 2>&1 || apt_install valgrind
}

install_regress() {
    command -v python3 >/dev/null 2>&1 || apt_install python3
    command -v bzip2 >/dev/null 2>&1 || apt_install bzip2
    # What the suites themselves need is unpacked below target/regress by scripts/regress_source.py.
    [ -f "$(pg_config --includedir 2>/dev/null)/libpq-fe.h" ] || apt_install libpq-dev
}

install_drivers() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3 python3-venv
    # The suites and the rest of what they need are unpacked below target/drivers by scripts/drivers_source.py.
}

install_compiler
install_postgresql
case ${1:-} in
    '') ;;
    --tests)
        install_python
        install_node
        ;;
    --bench) install_bench ;;
    --drivers) install_drivers ;;
    --regress) install_regress ;;
    *) fail "unknown argument: $1" ;;
esac
say "everything is there"
