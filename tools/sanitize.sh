#!/usr/bin/env bash
# The native engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer, or under ThreadSanitizer: a build and a
# copy of the package of their own, with the libraries of an environment that has cmake, ninja and nanobind.
#   tools/sanitize.sh memory|threads ENVIRONMENT [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1
environment=$(realpath "$2")
shift 2
export PATH="$environment/bin:$PATH"

case $kind in
memory) sanitizers=address,undefined libraries=(libasan.so libubsan.so) ;;
threads) sanitizers=thread libraries=(libtsan.so) ;;
*) echo "expected memory or threads, not $kind" >&2 && exit 2 ;;
esac

echo "-- build"
cmake -G Ninja -S . -B "build/sanitize-$kind" -DPython_EXECUTABLE="$environment/bin/python" \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGPULSTM_SANITIZE=$sanitizers >/dev/null
cmake --build "build/sanitize-$kind"

copy=build/sanitized-$kind
rm -rf "$copy"
mkdir -p "$copy"
cp -r gpulstm kernels tests tools pyproject.toml "$copy/"
cmake --install "build/sanitize-$kind" --prefix "$copy" >/dev/null

python -m venv --without-pip "$copy/env"
folder_of() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
folder_of python >"$(folder_of "$copy/env/bin/python")/libraries.pth"

cd "$copy"
preload=$(for one in "${libraries[@]}"; do g++ -print-file-name="$one"; done)
run() { # in an address space without random places, which ThreadSanitizer cannot do with on some kernels
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
    TSAN_OPTIONS=suppressions=tests/kernels/tsan.supp:die_after_fork=0:halt_on_error=1:exitcode=66 \
    LD_PRELOAD="${preload//$'\n'/ }" PYTHONPATH=. setarch -R env/bin/python "$@"
}

echo "-- tests"
if [ $# -gt 0 ]; then
  tests=("$@")
elif [ "$kind" = memory ]; then
  tests=(-k "engine or native or threads" tests/engines/test_cpu.py tests/test_losses.py tests/test_optimizers.py
    tests/kernels/test_native_arguments.py)
else
  tests=(-k "thread or split or native or engine" tests/engines/test_cpu.py tests/arrays/test_threads.py tests/test_losses.py
    tests/test_optimizers.py)
fi
if [ "$kind" = threads ]; then # a check that cannot find a race shows nothing
  status=0
  run tests/kernels/programs/race.py >race.log 2>&1 || status=$?
  [ $status -eq 66 ] || { cat race.log; echo "the race that tests/kernels/programs/race.py makes was not found"; exit 1; }
fi
run -m pytest -q -p no:cacheprovider -m "not cuda" "${tests[@]}"
[ "$kind" = memory ] || run tests/soak.py --seconds 60
