#!/bin/sh
# Write requirements.lock anew: the versions that a clean environment resolves to from pyproject.toml today.
set -eu
. "$(dirname -- "$0")/project.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --disable-pip-version-check --quiet --upgrade "setuptools<81"
"$work/venv/bin/python" -m pip install --disable-pip-version-check --quiet -e ".[dev]"
{
    echo "# Written by infra/scripts/lock.sh from pyproject.toml; used as constraints by infra/scripts/bootstrap.sh."
    "$work/venv/bin/python" -m pip freeze --all --exclude-editable | grep -v -e '^pip==' -e '^wheel=='
} >requirements.lock
echo "requirements.lock: $(grep -c == requirements.lock) packages"
