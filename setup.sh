#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# setup.sh VENV run|dev: install missing Debian packages, make the virtual environment, install the package editable,
# all of it at the versions of constraints.txt. Called by the Makefile when VENV/.ready-run or VENV/.ready-dev is older than that.
set -eu
venv=$1
set=$2
cd "$(dirname "$0")"

python=${PYTHON:-python3}
missing=
if ! command -v "$python" >/dev/null; then
    missing="python3 python3-venv"
else
    # -I: only the standard library, nothing of this folder. Prints Debian packages, one per line.
    missing=$("$python" -I host/doctor.py --debian)
fi
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || { echo "install these first (no apt-get here):" $missing >&2; exit 1; }
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends $missing
fi
# Better to have: nothing ends if there is none.
wished=$("$python" -I host/doctor.py --debian-wished)
if [ -n "$wished" ] && command -v apt-get >/dev/null && apt-cache show $wished >/dev/null 2>&1; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends $wished || true
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "$python is older than 3.11: set PYTHON to a newer one" >&2; exit 1; }
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
# By their environment pip constrains the build backend, too: older ones by the first, newer by the second.
export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
if [ "$set" = dev ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[dev]"
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e .
fi
touch "$venv/.ready-run" "$venv/.ready-$set"
