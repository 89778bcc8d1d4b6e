#!/bin/sh
# Remove what WikiStream made: its services, .venv, the caches in the repository and, if confirmed, the lake in WIKISTREAM_HOME.
set -eu
. "$(dirname -- "$0")/project.sh"

home=${WIKISTREAM_HOME:-.wikistream}
case $home in
"~" | "~/"*) home=$HOME${home#\~} ;;
-*) home=./$home ;;
esac

if [ -e "$home/lake.json" ] && [ -x .venv/bin/wikistream ]; then
    echo "stopping the services of $home"
    .venv/bin/wikistream down || echo "they could not be stopped (see above)"
fi

echo "removing .venv and the caches of Python, pytest, ruff and mypy"
rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist ./*.egg-info
find . -name __pycache__ -type d -prune -exec rm -rf {} +

# only a folder with a lake.json is one of ours: a mistyped WIKISTREAM_HOME costs nothing
if [ -e "$home/lake.json" ]; then
    if [ "${CONFIRM:-}" != 1 ] && [ -t 0 ]; then
        printf 'delete the lake %s with all its data? [y/N] ' "$home"
        read -r answer
        case $answer in [yY]*) CONFIRM=1 ;; esac
    fi
    if [ "${CONFIRM:-}" = 1 ]; then
        echo "removing $home"
        rm -rf "$home"
    else
        echo "keeping the lake $home ('make clean CONFIRM=1' deletes it)"
    fi
fi
echo "the jars stay in ${WIKISTREAM_CACHE:-~/.cache/wikistream}, shared by all homes"
