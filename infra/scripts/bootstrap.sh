#!/bin/sh
# Make .venv ready: Python 3.11, the pinned packages, the pinned jars, the record of classes. Run by make, which compares dates
# with the stamp that is written last: whatever was cut short before it is built anew. Works with uv when there is one, with pip
# otherwise. A second one in the same folder waits for the first.
set -eu
. "$(dirname -- "$0")/project.sh"

# What a shell profile has for another Python: where to look for modules, where and what to install. Settings of the network and of
# the registry (PIP_INDEX_URL, PIP_CERT ..) stay.
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE PYTHONWARNINGS
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_REQUIREMENT PIP_CONSTRAINT PIP_BUILD_CONSTRAINT PIP_NO_DEPS PIP_DRY_RUN
unset PIP_REQUIRE_HASHES PIP_NO_BINARY PIP_ONLY_BINARY PIP_NO_BUILD_ISOLATION PIP_IGNORE_INSTALLED PIP_EDITABLE PIP_REPORT
unset UV_PYTHON UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_CONSTRAINT UV_BUILD_CONSTRAINT UV_OVERRIDE UV_REQUIRE_HASHES UV_NO_BUILD
unset UV_NO_BINARY UV_NO_BUILD_ISOLATION UV_EXCLUDE_NEWER UV_RESOLUTION UV_PRERELEASE UV_MANAGED_PYTHON UV_NO_MANAGED_PYTHON
export PIP_USER=0 # also where pip's own file of settings says otherwise

venv=.venv
stamp=$venv/.ready

# Before anything is written: what neither Python's environments nor Java's class path can hold.
case $PWD in
*:*) fail "the folder $PWD has a ':' in its name, which Java and Python's environments take for a separator: rename or move it" ;;
*[[:cntrl:]]*) fail "the folder's path has a line break or another control character in it: rename or move it" ;;
esac
pwd | LC_ALL=C.UTF-8 grep -qax '.*' || fail "the folder's path is not UTF-8: rename or move it"

find_python() {
    for candidate in "${PYTHON:-python3.11}" python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# What went wrong, in a few words: the network's own words if it was the network, else the installer's last error.
reason() {
    grep -ohE "(Failed to establish a new connection: |Tunnel connection failed|Cannot connect to proxy|certificate verify failed|Name or service not known|Temporary failure in name resolution|Connection refused|No space left on device|dns error|timed out)[^'\")(,]*" "$log" | head -n 1 | grep . ||
        grep -E "^(ERROR|error|  ×)" "$log" | tail -n 1 | cut -c 1-200 | grep . || tail -n 1 "$log"
}

# Take the lock on this file, which the kernel frees whatever becomes of us; "$@" may ask not to wait.
take_lock() {
    if command -v flock >/dev/null 2>&1; then
        flock "$@" 9
    else
        "$(find_python)" -c 'import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | (fcntl.LOCK_NB if sys.argv[1:] else 0))' "$@" 2>/dev/null
    fi
}

create_venv() {
    if command -v uv >/dev/null 2>&1; then
        echo "[1/4] creating $venv (uv)"
        uv venv --quiet --clear --python 3.11 "$venv" >"$log" 2>&1 || fail "uv cannot make a Python 3.11 environment ($(reason)): install Python 3.11 and run make again"
        return
    fi
    python=$(find_python)
    [ -n "$python" ] || fail "Python 3.11 was not found: install it (python3.11 with its venv module), or name it by PYTHON=/path/to/python3.11"
    echo "[1/4] creating $venv ($("$python" --version))"
    "$python" -m venv "$venv" >"$log" 2>&1 || fail "$python cannot make a virtual environment ($(reason)): install its venv module (Debian, Ubuntu: apt install python3.11-venv)"
}

install_packages() {
    echo "[2/4] installing $(grep -c == requirements.lock) pinned packages into $venv (about 0.5 GB the first time, some minutes)"
    # shellcheck disable=SC2016  # awk's own variables
    show='/^(Downloading|  Downloading|Using cached|  Using cached) .*MB\)/ || /^(Building wheel|Installing collected|Prepared|Installed|Resolved)/ { line = $0; sub(/^ +/, "", line); sub(/:.*| packages: .*/, "", line); print "      " line; fflush() }'
    if command -v uv >/dev/null 2>&1; then
        set -- uv pip install --python "$venv/bin/python"
    else
        set -- "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off
    fi
    { "$@" -c requirements.lock -e ".[dev]" 2>&1 || echo failed >"$log.failed"; } | tee "$log" | awk "$show"
    if [ -e "$log.failed" ]; then
        rm -f "$log.failed"
        fail "the packages cannot be installed ($(reason)): check the network and the installer's settings (HTTPS_PROXY, PIP_INDEX_URL, PIP_CERT) and run make again"
    fi
}

# pip writes the folder's path into the first line of its scripts, where not every character is safe and not every length.
write_command() {
    cat >"$venv/bin/wikistream" <<'END'
#!/bin/sh
# Written by infra/scripts/bootstrap.sh. Isolated: no module in the current folder or in PYTHONPATH takes the place of ours.
exec "$(dirname -- "$(readlink -f -- "$0")")/python" -I -X utf8 -m wikistream_assets "$@"
END
    chmod +x "$venv/bin/wikistream"
}

set_up() {
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # An environment without a stamp was cut short, or belongs to a folder that was moved.
    if [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "$(pwd)" ]; then
        rm -rf "$venv"
        create_venv
    fi
    rm -f "$stamp"
    install_packages
    write_command
    echo "[3/4] fetching the jars"
    "$venv/bin/python" -I -m wikistream_assets.embedded.jars
    echo "[4/4] recording the classes that Spark loads, so that it starts faster from now on (a small demo, one to two minutes)"
    "$venv/bin/python" -I -X utf8 -m wikistream_assets.cli.record_classes || echo "no class archive: everything works, and Spark starts some seconds later each time"
    pwd >"$stamp"
    echo "ready"
}

# Whether another 'make' has finished since ours looked.
is_ready() {
    [ "$(cat "$stamp" 2>/dev/null)" = "$(pwd)" ] &&
        [ -z "$(find pyproject.toml requirements.lock wikistream_assets/embedded/jars.lock infra/scripts/bootstrap.sh -newer "$stamp")" ]
}

exec 9<infra/scripts/bootstrap.sh
if ! take_lock -n; then
    echo "another 'make' is setting up $(pwd): waiting until it is done"
    take_lock || true # without flock and without Python there is no lock, and no Python to set up with either
fi
is_ready || set_up 9<&- # what set-up starts must not hold the lock after it
