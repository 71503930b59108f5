/* A survey: what is in a workspace, so that whoever asks can tell whether anything changed, whoever changed it.

   The first process starts it before it is needed, with a socket as standard input and two arguments: the user whose
   rights it takes before it looks at anything, and the workspace. It waits for a line, the digest that the executor
   knows (it may be empty), and answers as PROTOCOL.md says of the call: frames of rows unless the digest is the known
   one, then the result.

   It is in C because every exec of a program waits for it: to fork the first process, and to walk in Python, takes
   several times as long. Names are the programs' own choice: links are not followed, and depth, number and bytes have
   limits. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <grp.h>
#include <limits.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "text.h"
#include "listing.h"

enum { FIRST_PROCESS = STDIN_FILENO };
/* Beyond MAXIMUM_ENTRIES the walk ends, and what was not seen is not counted either. */
enum { MAXIMUM_FILES = 20000, MAXIMUM_DEPTH = 64, MAXIMUM_LISTING = 8 << 20 };
enum { MAXIMUM_ENVIRONMENTS = 1000, MAXIMUM_UNMANAGED = 32, MAXIMUM_UNMANAGED_ENTRIES = 20000 };
enum { FRAME_BYTES = 1 << 16 };

static const char *const SKIPPED_AT_TOP[] = {".qila", ".home", ".local", ".cache", "lost+found", NULL};
static const char *const SKIPPED[] = {"node_modules", "__pycache__", ".venv", ".git", NULL};
static const char *const OWN_DEPENDENCIES[] = {"deps", "node_modules", NULL};
/* Where people put jars by hand. */
static const char *const JARS[] = {"lib", "libs", NULL};

static const char *root;
/* One row, the rows of the frame that is being made, and whole frames that wait until it is known whether they are
   wanted. */
static struct text row, rows, held;
static SHA256_CTX digest;
static bool is_digest_known;
static size_t files, skipped, visited, listed_bytes, module_count, environment_count;
static char *modules[MAXIMUM_UNMANAGED];

static void add_digest(struct text *text, SHA256_CTX *context) {
    unsigned char bytes[SHA256_DIGEST_LENGTH];
    char digits[3];
    SHA256_Final(bytes, context);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++)
        add_bytes(text, digits, (size_t)snprintf(digits, sizeof digits, "%02x", bytes[i]));
}

/* Frames. */

static void add_frame(struct text *text, const struct text *header) {
    uint32_t lengths[2] = {htonl((uint32_t)header->size), 0};
    add_bytes(text, lengths, sizeof lengths);
    add_bytes(text, header->bytes, header->size);
}

/* Sends what is held; without anybody to hear it, it is over. */
static void send_held(void) {
    for (size_t done = 0; done < held.size;) {
        ssize_t count = send(FIRST_PROCESS, held.bytes + done, held.size - done, MSG_NOSIGNAL);
        if (count < 0)
            _exit(0);
        done += (size_t)count;
    }
    held.size = 0;
}

static void end_frame(void) {
    if (rows.size == 0)
        return;
    add(&rows, "]}");
    add_frame(&held, &rows);
    rows.size = 0;
    if (!is_digest_known)
        send_held();
}

/* The walk. `path` is relative to the workspace; a directory's ends in "/". */

static char path[PATH_MAX];

static void walk(int descriptor, size_t length, int depth);

static void visit_directory(int parent, const char *name, size_t length, int depth) {
    if (is_one_of(name, SKIPPED) || (depth == 0 && is_one_of(name, SKIPPED_AT_TOP))) {
        if (strcmp(name, "node_modules") == 0 && module_count < MAXIMUM_UNMANAGED && is_text(path))
            modules[module_count++] = joined("%s/%s", root, path);
        return;
    }
    if (depth + 1 >= MAXIMUM_DEPTH) {
        skipped++;
        return;
    }
    strcpy(path + length, "/");
    walk(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), length + 1, depth + 1);
}

static void visit_file(int parent, const char *name) {
    struct stat status;
    if (files >= MAXIMUM_FILES || !is_text(path) || fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        skipped++;
        return;
    }
    unsigned long long numbers[] = {(unsigned long long)status.st_size, nanoseconds(&status.st_mtim),
                                    nanoseconds(&status.st_ctim), status.st_ino};
    row.size = 0;
    add(&row, "[");
    add_quoted(&row, path);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        add(&row, ",");
        add_number(&row, numbers[i]);
    }
    add(&row, "]\n");
    if (listed_bytes + row.size > MAXIMUM_LISTING) {
        skipped++;
    } else {
        files++;
        listed_bytes += row.size;
        SHA256_Update(&digest, row.bytes, row.size);
        add(&rows, rows.size == 0 ? "{\"type\":\"data\",\"entries\":[" : ",");
        add_bytes(&rows, row.bytes, row.size - 1);
        if (rows.size > FRAME_BYTES)
            end_frame();
    }
}

static void visit(int parent, const struct entry *entry, size_t length, int depth) {
    struct stat status;
    unsigned char type = entry->type;
    if (type == DT_UNKNOWN && fstatat(parent, entry->name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        type = IFTODT(status.st_mode);
    if (type != DT_DIR && type != DT_REG)
        return;
    /* What the workspace's own path leaves room for, with "/" at both ends. */
    if (strlen(root) + length + strlen(entry->name) + 3 > sizeof path) {
        skipped++;
        return;
    }
    strcpy(path + length, entry->name);
    if (type == DT_DIR)
        visit_directory(parent, entry->name, length + strlen(entry->name), depth);
    else
        visit_file(parent, entry->name);
}

/* Visits the regular files below a directory, sorted. Takes the descriptor over. */
static void walk(int descriptor, size_t length, int depth) {
    struct listing listing = open_listing(descriptor);
    bool is_wanted = true;
    skipped += listing.directory == NULL;
    for (size_t i = 0; depth > 0 && i < listing.count && is_wanted; i++)
        is_wanted = strcmp(listing.entries[i].name, "pyvenv.cfg") != 0;
    for (size_t i = 0; is_wanted && i < listing.count && ++visited <= MAXIMUM_ENTRIES; i++)
        visit(dirfd(listing.directory), &listing.entries[i], length, depth);
    close_listing(&listing);
}

/* The result: what there is beside the files. */

static bool is_python(const char *name) {
    static const char start[] = "python3.";
    size_t length = strlen(start), digits = strncmp(name, start, length) == 0 ? strspn(name + length, "0123456789") : 0;
    return digits >= 1 && digits <= 3 && name[length + digits] == '\0';
}

/* Adds names and times to the digest; npm keeps the packages of a scope one level deeper. */
static void digest_names(const char *directory, SHA256_CTX *context, int *budget, bool scopes) {
    struct listing listing = open_path(directory);
    struct stat status;
    for (size_t i = 0; i < listing.count && *budget > 0; i++) {
        const char *name = listing.entries[i].name;
        --*budget;
        if (fstatat(dirfd(listing.directory), name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        unsigned long long modified = nanoseconds(&status.st_mtim);
        SHA256_Update(context, name, strlen(name) + 1);
        SHA256_Update(context, &modified, sizeof modified);
        if (scopes && name[0] == '@') {
            char *below = joined("%s/%s", directory, name);
            digest_names(below, context, budget, false);
            free(below);
        }
    }
    close_listing(&listing);
}

/* A directory into which programs install packages by themselves, with a digest of what lies in it. */
static void add_unmanaged(struct text *result, const char *directory, bool scopes) {
    static int count, budget = MAXIMUM_UNMANAGED_ENTRIES;
    SHA256_CTX context;
    if (count == MAXIMUM_UNMANAGED)
        return;
    SHA256_Init(&context);
    digest_names(directory, &context, &budget, scopes);
    add(result, count++ == 0 ? "{\"path\":" : ",{\"path\":");
    add_quoted(result, directory);
    add(result, ",\"digest\":\"");
    add_digest(result, &context);
    add(result, "\"}");
}

static void add_all_unmanaged(struct text *result) {
    char *libraries = joined("%s/.local/lib", root), *deps = joined("%s/deps", root);
    struct listing pythons = open_path(libraries);
    /* Where pip puts what a program installs by itself: one directory for each version of Python. */
    for (size_t i = 0; i < pythons.count; i++) {
        char *packages = joined("%s/%s/site-packages", libraries, pythons.entries[i].name);
        if (is_python(pythons.entries[i].name) && holds_suffix(packages, ".dist-info"))
            add_unmanaged(result, packages, false);
        free(packages);
    }
    close_listing(&pythons);
    if (is_real_directory(deps))
        add_unmanaged(result, deps, false);
    for (const char *const *name = JARS; *name != NULL; name++) {
        char *jars = joined("%s/%s", root, *name);
        if (holds_suffix(jars, ".jar"))
            add_unmanaged(result, jars, false);
        free(jars);
    }
    for (size_t i = 0; i < module_count; i++)
        add_unmanaged(result, modules[i], true);
    free(libraries);
    free(deps);
}

static void add_environment(struct text *result, const char *ecosystem, const char *fingerprint) {
    char *directory = joined("%s/.qila/env/%s/%s", root, ecosystem, fingerprint);
    char *marker = joined("%s/.complete", directory), *link = joined("%s/.qila/current/%s", root, ecosystem);
    char own[PATH_MAX], current[PATH_MAX];
    struct stat status;
    bool is_listed = environment_count < MAXIMUM_ENVIRONMENTS && is_text(ecosystem) && is_text(fingerprint);
    if (is_listed && lstat(marker, &status) == 0 && realpath(directory, own) != NULL) {
        add(result, environment_count++ == 0 ? "{\"ecosystem\":" : ",{\"ecosystem\":");
        add_quoted(result, ecosystem);
        add(result, ",\"fingerprint\":");
        add_quoted(result, fingerprint);
        add(result, ",\"current\":");
        add(result, realpath(link, current) != NULL && strcmp(own, current) == 0 ? "true}" : "false}");
    }
    free(directory);
    free(marker);
    free(link);
}

static void add_all_environments(struct text *result) {
    char *all = joined("%s/.qila/env", root);
    struct listing ecosystems = open_path(all);
    for (size_t i = 0; i < ecosystems.count; i++) {
        char *one = joined("%s/%s", all, ecosystems.entries[i].name);
        struct listing fingerprints = open_path(one);
        for (size_t j = 0; j < fingerprints.count; j++)
            add_environment(result, ecosystems.entries[i].name, fingerprints.entries[j].name);
        close_listing(&fingerprints);
        free(one);
    }
    close_listing(&ecosystems);
    free(all);
}

static void add_own_directories(struct text *result) {
    for (const char *const *name = OWN_DEPENDENCIES, *comma = ""; *name != NULL; name++) {
        char *directory = joined("%s/%s", root, *name);
        if (is_real_directory(directory)) {
            add(result, comma);
            add_quoted(result, *name);
            comma = ",";
        }
        free(directory);
    }
}

/* Leaves out the rows if the executor knows them. */
static void send_result(const char *known) {
    struct text result = {NULL, 0, 0}, own = {NULL, 0, 0};
    add_digest(&own, &digest);
    end_frame();
    if (is_digest_known && own.size == strlen(known) && memcmp(own.bytes, known, own.size) == 0)
        held.size = 0;
    add(&result, "{\"type\":\"result\",\"digest\":\"");
    add_bytes(&result, own.bytes, own.size);
    add(&result, "\",\"file_count\":");
    add_number(&result, files);
    add(&result, ",\"skipped_count\":");
    add_number(&result, skipped);
    add(&result, ",\"environments\":[");
    add_all_environments(&result);
    add(&result, "],\"own_directories\":[");
    add_own_directories(&result);
    add(&result, "],\"unmanaged\":[");
    add_all_unmanaged(&result);
    add(&result, "]}");
    add_frame(&held, &result);
    send_held();
}

/* The start. */

/* A survey goes before the first process when memory runs out. */
static bool raise_oom_score(void) {
    char text[16] = "";
    int file = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (file < 0 || read(file, text, sizeof text - 1) < 0)
        return false;
    bool done = atoi(text) >= 0 || dprintf(file, "0") > 0;
    return close(file) == 0 && done;
}

/* Takes the user's id, its own group alone, and umask 022. The capabilities go with the id. */
static bool become(uid_t user) {
    umask(022);
    return getuid() == user
           || (setgroups(1, &user) == 0 && setresgid(user, user, user) == 0 && setresuid(user, user, user) == 0);
}

/* Waits for the line; false when the first process is gone. */
static bool read_known(char *known, size_t room) {
    size_t size = 0;
    while (size < room && memchr(known, '\n', size) == NULL) {
        ssize_t count = read(FIRST_PROCESS, known + size, room - size);
        if (count <= 0)
            return false;
        size += (size_t)count;
    }
    char *end = memchr(known, '\n', size);
    if (end != NULL)
        *end = '\0';
    return end != NULL;
}

int main(int count, char **arguments) {
    char known[2 * SHA256_DIGEST_LENGTH + 1];
    if (count != 3 || close_range(FIRST_PROCESS + 1, ~0U, 0) < 0 || !raise_oom_score()
        || !read_known(known, sizeof known) || !become((uid_t)atoi(arguments[1])))
        return 1;
    /* Programs of the same user can neither trace this process nor speak over its socket. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    root = arguments[2];
    is_digest_known = known[0] != '\0';
    SHA256_Init(&digest);
    walk(open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0, 0);
    send_result(known);
    return 0;
}
