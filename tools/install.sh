#!/bin/bash
# Installs this package with pip and lets its progress be seen, downloads and compiler; says it aloud where no native code
# came of it.
#   tools/install.sh PYTHON ARGUMENT...      the arguments are pip's, such as -e '.[test]'
set -u -o pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1") # not realpath: an environment's python is a link
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$python" -m pip install -v --disable-pip-version-check "$@" 2>&1 | tee "$log" |
  grep --line-buffered -oE '\[[0-9]+/[0-9]+\] (Building|Linking) .*|Downloading [^ ]+\.(whl|gz) .*|Installing (build dependencies: started|collected packages)' |
  sed -u -E 's/CMakeFiles\/([^ ]*)\.dir\//\1: /; s/(Installing [a-z ]*).*/\1/; s/^/   /'
status=${PIPESTATUS[0]}
if [ "$status" -ne 0 ]; then
  tail -n 40 "$log" >&2
  exit "$status"
fi
(cd / && "$python" - <<'PYTHON') || { grep -nE 'error:|CMake Error|No CMAKE_CXX_COMPILER' "$log" | head -n 20 >&2; exit 0; }
import sys
from gpulstm.arrays import native
if native.load() is None:
    line = "=" * 100
    print(f"{line}\nNO NATIVE CODE: {native.missing()}\n{line}", file=sys.stderr)
    sys.exit(1)
PYTHON
