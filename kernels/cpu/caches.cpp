#include "caches.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

namespace gpulstm {
namespace {

long at_least_none(long size) { return size > 0 ? size : 0; }

Caches from_system() {
    Caches c = {0, 0, 0, "sysconf"};
#ifdef _SC_LEVEL1_DCACHE_SIZE
    c.first = at_least_none(sysconf(_SC_LEVEL1_DCACHE_SIZE));
    c.second = at_least_none(sysconf(_SC_LEVEL2_CACHE_SIZE));
    c.third = at_least_none(sysconf(_SC_LEVEL3_CACHE_SIZE));
#endif
    return c;
}

// One line of a file of cpu0's cache `index`; false where there is none.
bool read_line(int index, const char* name, char* line, int size) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, name);
    FILE* file = fopen(path, "r");
    if (!file) return false;
    const bool read = fgets(line, size, file) != nullptr;
    fclose(file);
    return read;
}

Caches from_files() {
    Caches c = {0, 0, 0, "/sys"};
    char line[64];
    for (int index = 0; index < 8 && read_line(index, "type", line, sizeof line); ++index) {
        if (!strncmp(line, "Instruction", 11)) continue;
        int level = 0;
        long size = 0;
        char unit = 0;
        if (!read_line(index, "level", line, sizeof line) || sscanf(line, "%d", &level) != 1) continue;
        if (!read_line(index, "size", line, sizeof line) || sscanf(line, "%ld%c", &size, &unit) < 1) continue;
        size *= unit == 'K' ? 1l << 10 : unit == 'M' ? 1l << 20 : 1;
        if (level == 1) c.first = size;
        if (level == 2) c.second = size;
        if (level == 3) c.third = size;
    }
    return c;
}

Caches read_all() {
    Caches c = from_files();  // sysconf counts the third level of some AMD processors ten times
    if (!c.first || !c.second) c = from_system();
    if (!c.first || !c.second) c = {32 << 10, 512 << 10, 0, "assumed"};
    return c;
}

Caches& stored() {
    static Caches c = read_all();
    return c;
}

long least(long a, long b) { return a < b ? a : b; }

}  // namespace

const Caches& caches() { return stored(); }

void give_caches(long first, long second, long third) { stored() = {first, second, third, "given"}; }

CacheModel cache_model() {
    const Caches& c = caches();
    return {least(64 << 10, c.second / 8), c.second / 4 * 3, least(256 << 10, c.second / 4)};
}

}  // namespace gpulstm
