# Sourced by the scripts beside it: finding a Python, and making a virtual environment.

# The first Python 3.11 to 3.13 that runs; the variable PYTHON overrides the search.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Expected Python 3.11, 3.12 or 3.13 on the PATH, found none. Install one, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

# make_environment DIRECTORY REQUIREMENT...: a fresh virtual environment that holds the requirements.
make_environment() {
    local directory=$1 python
    shift
    python=$(find_python)
    if ! "$python" -m venv "$directory"; then
        echo "$python cannot make a virtual environment (on Debian and Ubuntu, install its package python3-venv)." >&2
        return 1
    fi
    # setuptools would put files that no longer exist into the package again.
    rm -rf build/lib build/bdist.*
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@" </dev/null
}

say() {
    printf '\n== %s\n' "$*" >&2
}
