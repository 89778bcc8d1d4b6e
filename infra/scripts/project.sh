# Read by the scripts beside it: go to the project's folder, and leave behind what a shell's profile may have set that would
# change what they do. With CDPATH, 'cd' could end in another project.
unset CDPATH GREP_OPTIONS POSIXLY_CORRECT PYTHONPATH PYTHONHOME

fail() {
    echo "error: $1" >&2
    exit 1
}

cd -- "$(dirname -- "$0")/../.." || exit 1
grep -qsx 'name = "wikistream"' pyproject.toml || fail "$(pwd) is not WikiStream's folder: start the script by its path in it"
