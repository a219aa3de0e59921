/* What is left for this process: of the machine, and of the control groups around it (containers, batch jobs). */
#include "container.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* ---- reading ---------------------------------------------------------------------------------- */

static FILE *open_in(const char *directory, const char *name)
{
    char path[PATH_MAX];
    return (size_t)snprintf(path, sizeof path, "%s/%s", directory, name) < sizeof path ? fopen(path, "re") : NULL;
}

/* How many numbers a file begins with, two at most; "max" is none. */
static int read_numbers(const char *directory, const char *name, int64_t *first, int64_t *second)
{
    FILE *file = open_in(directory, name);
    if (!file)
        return 0;
    const int numbers = fscanf(file, "%" SCNd64 " %" SCNd64, first, second);
    fclose(file);
    return numbers;
}

/* The number of a line "name number ..." of a file; `otherwise` where there is none. */
static int64_t read_line(const char *directory, const char *name, const char *wanted, int64_t otherwise)
{
    char line[256], word[64];
    int64_t number, found = otherwise;
    FILE *file = open_in(directory, name);
    if (!file)
        return otherwise;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%63s %" SCNd64, word, &number) == 2 && strcmp(word, wanted) == 0) {
            found = number;
            break;
        }
    fclose(file);
    return found;
}

/* ---- control groups ---------------------------------------------------------------------------- */

static int64_t least(int64_t one, int64_t other)
{
    return one < other ? one : other;
}

static int has_word(const char *list, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ','), at += at != NULL)
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return 1;
    return 0;
}

/* The least that a group and those around it allow. A container sees its own group as the outermost one,
 * often without the folders that lead there, so a folder that is missing is no end. */
static int64_t of_group(int64_t (*allowed)(const char *directory), const char *mount, const char *group)
{
    char directory[PATH_MAX];
    int64_t found = INT64_MAX;

    if ((size_t)snprintf(directory, sizeof directory, "%s%s", mount, group) >= sizeof directory)
        return found;
    for (;;) {
        found = least(found, allowed(directory));
        char *end = strrchr(directory + strlen(mount), '/');
        if (!end)
            return found;
        *end = '\0';
    }
}

/* The same of all groups with a controller; looked for where distributions and containers mount them. `of_version_1`:
 * the folders that a controller's groups have there. */
static int64_t of_groups(int64_t (*allowed)(const char *directory), const char *root, const char *controller,
                         const char *const of_version_1[2])
{
    static const char *const of_version_2[2] = {"", "/unified"};
    char line[PATH_MAX + 256], mount[PATH_MAX];
    int64_t found = INT64_MAX;

    FILE *file = open_in(root, "proc/self/cgroup");
    if (!file)
        return found;
    while (fgets(line, sizeof line, file)) {            /* number:controllers:group */
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(++controllers, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        const int version_2 = *controllers == '\0';
        if (!version_2 && !has_word(controllers, controller))
            continue;
        for (int i = 0; i < 2; i++) {
            const char *folder = version_2 ? of_version_2[i] : of_version_1[i];
            if (folder && (size_t)snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, folder) < sizeof mount)
                found = least(found, of_group(allowed, mount, group));
        }
    }
    fclose(file);
    return found;
}

/* ---- CPUs ---------------------------------------------------------------------------------------- */

static int64_t round_up(int64_t quota, int64_t period)
{
    return quota > 0 && period > 0 ? (quota - 1) / period + 1 : INT64_MAX;
}

/* "max 100000" of version 2 has no number in front, version 1 says -1. */
static int64_t paid_cpus(const char *directory)
{
    int64_t quota, period, none;
    if (read_numbers(directory, "cpu.max", &quota, &period) == 2)
        return round_up(quota, period);
    if (read_numbers(directory, "cpu.cfs_quota_us", &quota, &none) >= 1
        && read_numbers(directory, "cpu.cfs_period_us", &period, &none) >= 1)
        return round_up(quota, period);
    return INT64_MAX;
}

int lai_read_cgroup_cpus(const char *root)
{
    static const char *const folders[2] = {"/cpu", "/cpu,cpuacct"};
    const int64_t cpus = of_groups(paid_cpus, root, "cpu", folders);
    return cpus == INT64_MAX ? 0 : (int)least(cpus, INT_MAX);
}

/* ---- memory ---------------------------------------------------------------------------------------- */

/* Limit less use; what the kernel takes back when it needs it (pages of files, not used of late) is not in use. */
static int64_t left_in(const char *directory)
{
    int64_t limit, used, none;
    if (read_numbers(directory, "memory.max", &limit, &none) >= 1
        && read_numbers(directory, "memory.current", &used, &none) >= 1)
        used -= read_line(directory, "memory.stat", "inactive_file", 0);
    else if (read_numbers(directory, "memory.limit_in_bytes", &limit, &none) >= 1
             && read_numbers(directory, "memory.usage_in_bytes", &used, &none) >= 1)
        used -= read_line(directory, "memory.stat", "total_inactive_file", 0);
    else
        return INT64_MAX;
    return used < limit ? limit - used : 0;
}

int64_t lai_available_memory(const char *root)
{
    static const char *const folders[2] = {"/memory", NULL};
    const int64_t kib = read_line(root, "proc/meminfo", "MemAvailable:", INT64_MAX / 1024);
    return least(1024 * kib, of_groups(left_in, root, "memory", folders));
}
