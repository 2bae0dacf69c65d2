#!/usr/bin/env bash
# The native engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer: a build and a copy of the package of
# their own, with the libraries of an environment that has cmake, ninja and nanobind.
#   tools/sanitize.sh ENVIRONMENT [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(realpath "$1")
shift
export PATH="$environment/bin:$PATH"

echo "-- build"
cmake -G Ninja -S . -B build/sanitize -DPython_EXECUTABLE="$environment/bin/python" \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGPULSTM_SANITIZE=ON >/dev/null
cmake --build build/sanitize

copy=build/sanitized
rm -rf "$copy"
mkdir -p "$copy"
cp -r gpulstm kernels tests tools pyproject.toml "$copy/"
cmake --install build/sanitize --prefix "$copy" >/dev/null

python -m venv --without-pip "$copy/env"
libraries() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
libraries python >"$(libraries "$copy/env/bin/python")/libraries.pth"

echo "-- tests"
cd "$copy"
tests=(-k "engine or native or threads" tests/engines/test_cpu.py tests/test_losses.py tests/test_optimizers.py)
[ $# -eq 0 ] || tests=("$@")
ASAN_OPTIONS=detect_leaks=0 \
  LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
  env/bin/python -m pytest -q -p no:cacheprovider -m "not cuda" "${tests[@]}"
