#!/bin/sh
# Checks the project's shell scripts: with shellcheck where it is installed, else their syntax only.
set -eu
cd "$(dirname "$0")/.."

scripts=$(find scripts docker .ci -type f \( -name '*.sh' -o -path .ci/run \) | sort)
for script in $scripts; do
    if command -v shellcheck >/dev/null 2>&1; then
        shellcheck "$script"
    elif head -n 1 "$script" | grep -q bash; then
        bash -n "$script"
    else
        sh -n "$script"
    fi
done
echo "shell scripts: $(echo "$scripts" | wc -l) checked"
