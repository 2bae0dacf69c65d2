#!/bin/bash
# The CPU engine compiled for aarch64 (NEON) and run under an emulator: a few shapes against plain loops and central differences.
#   tools/cross_check.sh         needs g++-aarch64-linux-gnu and qemu-user, on Debian packages of these names
set -euo pipefail
cd "$(dirname "$0")/.."
CXX=${CXX:-aarch64-linux-gnu-g++}
RUN=${RUN-qemu-aarch64}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
sources="tiles engine variant reduced reduced_tiles caches memory threads"
for source in $sources; do
  level=-O1
  [ "$source" = tiles ] && level=-O3
  "$CXX" -std=gnu++17 $level -fno-math-errno -fno-trapping-math -Wall -Wextra -DGPULSTM_ISA=baseline -Ikernels \
    -c "kernels/cpu/$source.cpp" -o "$out/$source.o"
done
"$CXX" -std=gnu++17 -O1 -Wall -Wextra -Ikernels -static tests/kernels/programs/engine_check.cpp "$out"/*.o -lpthread -o "$out/check"
$RUN "$out/check"
