/* Directories as sorted lists, and questions about names. Needs text.h. */

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { MAXIMUM_ENTRIES = 200000, BILLION = 1000000000 };

struct entry {
    char *name;
    unsigned char type;
};

struct listing {
    DIR *directory;
    struct entry *entries;
    size_t count;
};

static int by_name(const void *one, const void *other) {
    return strcmp(((const struct entry *)one)->name, ((const struct entry *)other)->name);
}

/* What is in a directory, sorted by name; without `directory` if it cannot be read. Takes the descriptor over. */
static struct listing open_listing(int descriptor) {
    struct listing listing = {descriptor < 0 ? NULL : fdopendir(descriptor), NULL, 0};
    size_t room = 0;
    if (listing.directory == NULL) {
        if (descriptor >= 0)
            close(descriptor);
        return listing;
    }
    for (struct dirent *found; listing.count <= MAXIMUM_ENTRIES && (found = readdir(listing.directory)) != NULL;) {
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if (listing.count == room) {
            room = 2 * room + 64;
            listing.entries = or_die(realloc(listing.entries, room * sizeof *listing.entries));
        }
        listing.entries[listing.count++] = (struct entry){or_die(strdup(found->d_name)), found->d_type};
    }
    if (listing.count > 0)
        qsort(listing.entries, listing.count, sizeof *listing.entries, by_name);
    return listing;
}

static void close_listing(struct listing *listing) {
    for (size_t i = 0; i < listing->count; i++)
        free(listing->entries[i].name);
    free(listing->entries);
    if (listing->directory != NULL)
        closedir(listing->directory);
}

static struct listing open_path(const char *path) {
    return open_listing(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static bool is_one_of(const char *name, const char *const *names) {
    while (*names != NULL && strcmp(name, *names) != 0)
        names++;
    return *names != NULL;
}

static bool has_suffix(const char *name, const char *suffix) {
    size_t length = strlen(name), wanted = strlen(suffix);
    return length >= wanted && strcmp(name + length - wanted, suffix) == 0;
}

static bool holds_suffix(const char *path, const char *suffix) {
    struct listing listing = open_path(path);
    bool found = false;
    for (size_t i = 0; i < listing.count && !found; i++)
        found = has_suffix(listing.entries[i].name, suffix);
    close_listing(&listing);
    return found;
}

static bool is_real_directory(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* Nanoseconds since 1970; 0 before. */
static unsigned long long nanoseconds(const struct timespec *time) {
    return time->tv_sec < 0 ? 0 : (unsigned long long)time->tv_sec * BILLION + (unsigned long long)time->tv_nsec;
}
