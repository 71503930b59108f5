/* A supervisor: root, and the parent of one program and of all its orphans, which can neither kill nor leave it.

   The first process starts it before it is needed, and it forks the leader before it is needed: what becomes the program
   waits for the order itself, with all behind it that is the same for every program. Standard input is a socket to the
   first process, standard output and standard error are the program's pipes. From the first process comes one order
   (`struct order`, with the program's own input or terminal if it has one, then its texts), which the leader reads, then
   at any time a demand (`struct demand`): kill, or signal, which is read here. To it go reports (`struct report`). It
   exits when no process of the lineage is left.

   It is in C because a program's start is what everybody waits for: a Python process takes milliseconds to fork, to
   forget itself and to be forgotten, and this one takes a tenth of one. Nothing of what programs say is read here; of
   the process table, only numbers. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_PROCESS = STDIN_FILENO };
enum { MAXIMUM_TEXT = 8 << 20, MAXIMUM_TEXTS = 1 << 20, MAXIMUM_PROCESSES = 1 << 16, MAXIMUM_ID = 1 << 22 };
/* Programs go first when memory runs out, on the machine as in the container. */
enum { PROGRAM_OOM_SCORE = 500, LOWEST_PRIORITY = 19 };
/* Of a program that ends so soon only the end is told. */
enum { UNTOLD_NANOSECONDS = 5000000, SECOND = 1000000000 };
/* A fork bomb that outruns the stopping is killed in rounds. */
enum { SWEEP_SECONDS = 10, LOOKS = 2, MAXIMUM_STOP_ROUNDS = 100, PAUSE_NANOSECONDS = 1000000 };

/* What else an order asks for. With INPUT or TERMINAL a descriptor comes beside the order: the reading end of the
   program's standard input, or the terminal that it leads a session on. MERGED: its errors go where its output goes. */
enum { BACKGROUND = 1, INPUT = 2, TERMINAL = 4, MERGED = 8 };

/* Behind it: the working directory, the arguments, the variables, each ended by NUL; `size` is that of all. */
struct order {
    uint32_t size, user, flags, arguments, variables;
};

/* `signal` 0: kill all. `group` is the one in the foreground of the terminal, whose session is `session`; 0 if there is
   none. */
struct demand {
    int32_t signal, group, session;
};

/* Nobody's: who has it as real id may signal nobody by that. */
enum { NO_USER = 65533 };

enum stage { PREPARING, DIRECTORY, PROGRAM, TAKEN };
enum kind { STARTED = 1, FAILED, LEADER, SWEPT };

/* STARTED: process id. FAILED: errno, stage. LEADER: wait status, whether the sweep killed it. SWEPT: nobody left. */
struct report {
    int32_t kind, value, detail;
};

/* What the leader says of itself: that it has taken its order, with the order's user as `value`; or at which stage it
   failed, with the errno. */
struct news {
    int32_t value, stage;
};

static pid_t leader;
static uint32_t user;
static bool leader_ended, order_taken, sweeping, childless;
/* Where the leader says it. Closes by itself when its exec succeeds; -1 when that is known. */
static int leader_news = -1;
/* When its start is to be told. */
static struct timespec due;

static void tell(enum kind kind, int value, int detail) {
    struct report report = {kind, value, detail};
    /* Whether anybody hears it is not our concern: without the first process the kernel ends us all. */
    (void)!send(FIRST_PROCESS, &report, sizeof report, MSG_NOSIGNAL);
}

/* Reads exactly `size` bytes; false when the first process is gone. */
static bool read_whole(void *target, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t count = read(FIRST_PROCESS, (char *)target + done, size - done);
        if (count <= 0 && !(count < 0 && errno == EINTR))
            return false;
        done += count < 0 ? 0 : (size_t)count;
    }
    return true;
}

/* Reads an order; `descriptor` is what came beside it, or -1. */
static bool read_order(struct order *order, int *descriptor) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } beside;
    struct iovec part = {order, sizeof *order};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &beside, .msg_controllen = sizeof beside};
    ssize_t count;
    do
        count = recvmsg(FIRST_PROCESS, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    while (count < 0 && errno == EINTR);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *descriptor = -1;
    if (header != NULL && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(descriptor, CMSG_DATA(header), sizeof(int));
    return count == sizeof *order;
}

/* The leader: from the fork to the program. */

static void say(int report, int value, enum stage stage) {
    struct news news = {value, stage};
    (void)!write(report, &news, sizeof news);
}

static void fail(int report, enum stage stage) {
    say(report, errno, stage);
    _exit(127);
}

static bool raise_oom_score(void) {
    char text[16] = "";
    int file = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (file < 0 || read(file, text, sizeof text - 1) < 0)
        return false;
    bool done = atoi(text) >= PROGRAM_OOM_SCORE || dprintf(file, "%d", PROGRAM_OOM_SCORE) > 0;
    return close(file) == 0 && done;
}

/* Takes the user's id, its own group alone, and umask 022. The capabilities go with the id. */
static bool become(uint32_t user) {
    umask(022);
    return setgroups(1, &user) == 0 && setresgid(user, user, user) == 0 && setresuid(user, user, user) == 0;
}

static const char *search_path(char **environment) {
    for (; *environment != NULL; environment++)
        if (strncmp(*environment, "PATH=", 5) == 0)
            return *environment + 5;
    return "/bin:/usr/bin";
}

/* Becomes the program, looked for in the program's own PATH as a shell does; returns with errno if it cannot. */
static void execute(char **arguments, char **environment) {
    if (strchr(arguments[0], '/') != NULL) {
        execve(arguments[0], arguments, environment);
        return;
    }
    int failure = ENOENT;
    char *path = malloc(strlen(search_path(environment)) + strlen(arguments[0]) + 2);
    for (const char *start = search_path(environment); path != NULL; start++) {
        size_t length = strcspn(start, ":");
        sprintf(path, "%.*s%s%s", (int)length, start, length > 0 ? "/" : "", arguments[0]);
        execve(path, arguments, environment);
        if (errno != ENOENT && errno != ENOTDIR && failure == ENOENT)
            failure = errno;
        start += length;
        if (*start == '\0')
            break;
    }
    errno = path == NULL ? ENOMEM : failure;
}

/* Puts the standard three in their places. The program's two pipes stand there already; in the place of the socket to
   the first process comes the program's input, or what has nothing to say. */
static bool arrange(uint32_t flags, int input) {
    if (dup2(input, STDIN_FILENO) < 0)
        return false;
    if ((flags & TERMINAL) != 0
        && (ioctl(input, TIOCSCTTY, 0) < 0 || dup2(input, STDOUT_FILENO) < 0 || dup2(input, STDERR_FILENO) < 0))
        return false;
    return (flags & MERGED) == 0 || dup2(STDOUT_FILENO, STDERR_FILENO) >= 0;
}

/* Where each text begins: the directory, the arguments, NULL, the variables, NULL. */
static char **divide(const struct order *order, char *text) {
    const char *end = text + order->size;
    uint32_t count = 1 + order->arguments + order->variables;
    char **texts = calloc(count + 2, sizeof *texts);
    if (texts == NULL || order->size == 0 || end[-1] != '\0')
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        if (text == end)
            return NULL;
        texts[i <= order->arguments ? i : i + 1] = text;
        text += strlen(text) + 1;
    }
    return texts;
}

/* Waits for the order, and divides its texts; `descriptor` is what came beside it, or -1. Returns NULL with errno. */
static char **take_order(struct order *order, int *descriptor) {
    /* Without the first process nobody waits for us. */
    if (!read_order(order, descriptor))
        _exit(0);
    errno = E2BIG;
    if (order->size > MAXIMUM_TEXT || order->arguments < 1 || order->arguments > MAXIMUM_TEXTS
        || order->variables > MAXIMUM_TEXTS
        || (*descriptor >= 0) != ((order->flags & (INPUT | TERMINAL)) != 0))
        return NULL;
    char *text = malloc(order->size + 1);
    if (text != NULL && !read_whole(text, order->size))
        _exit(0);
    errno = text == NULL ? ENOMEM : EINVAL;
    return text == NULL ? NULL : divide(order, text);
}

/* As long as it has no order it is root, nobody in the sandbox can reach it, and it goes with its supervisor. */
static void lead(pid_t supervisor, int report) {
    struct order order;
    int descriptor;
    sigset_t none;
    struct rlimit no_core = {0, 0};
    sigemptyset(&none);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != supervisor)
        _exit(0);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (setsid() < 0 || nothing < 0 || !raise_oom_score() || setrlimit(RLIMIT_CORE, &no_core) < 0)
        fail(report, PREPARING);
    char **texts = take_order(&order, &descriptor);
    if (texts == NULL)
        fail(report, PREPARING);
    /* From here on others may stop it: who kills it must not wait for it. */
    say(report, (int)order.user, TAKEN);
    if (!arrange(order.flags, descriptor >= 0 ? descriptor : nothing)
        || ((order.flags & BACKGROUND) != 0 && setpriority(PRIO_PROCESS, 0, LOWEST_PRIORITY) < 0)
        || !become(order.user)
        || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        fail(report, PREPARING);
    if (chdir(texts[0]) < 0)
        fail(report, DIRECTORY);
    execute(texts + 1, texts + 1 + order.arguments + 1);
    fail(report, PROGRAM);
}

/* The start. */

static bool fork_leader(void) {
    int ends[2];
    pid_t own = getpid();
    if (pipe2(ends, O_CLOEXEC) < 0 || (leader = fork()) < 0) {
        tell(FAILED, errno, PREPARING);
        return false;
    }
    if (leader == 0) {
        close(ends[0]);
        lead(own, ends[1]);
    }
    leader_news = ends[0];
    close(ends[1]);
    /* Held here too, they would not end with the program. */
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    return true;
}

static void note_order(int32_t of_user) {
    order_taken = true;
    user = (uint32_t)of_user;
    clock_gettime(CLOCK_MONOTONIC, &due);
    due.tv_nsec += UNTOLD_NANOSECONDS;
}

/* Hears the next that the leader says. Does not wait if there is something, or the leader dead. */
static void hear_leader(void) {
    struct news news;
    ssize_t count = read(leader_news, &news, sizeof news);
    if (count == sizeof news && news.stage == TAKEN) {
        note_order(news.value);
        return;
    }
    close(leader_news);
    leader_news = -1;
    if (count == sizeof news) {
        leader_ended = true;
        tell(FAILED, news.value, news.stage);
    }
}

/* Learns how the exec went. */
static void settle_exec(void) {
    while (leader_news >= 0)
        hear_leader();
}

/* The ends. */

static void reap(void) {
    int status;
    pid_t process;
    while ((process = waitpid(-1, &status, WNOHANG)) > 0) {
        if (process != leader)
            continue;
        settle_exec();
        /* One that never had an order was nobody's. */
        if (!leader_ended && order_taken)
            tell(LEADER, status, sweeping && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        leader_ended = true;
    }
    childless = process < 0 && errno == ECHILD;
}

/* The stop-sweep: kill a changing set of processes until two looks find none. It forks nothing. */

static struct {
    int32_t id, parent;
} table[MAXIMUM_PROCESSES];
static int found[MAXIMUM_PROCESSES], stopped[MAXIMUM_PROCESSES];
static bool is_below[MAXIMUM_ID + 1], is_stopped[MAXIMUM_ID + 1];

/* The parent of a process; 0 if it is gone. */
static int parent_of(const char *name) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%.16s/stat", name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    text[size < 0 ? 0 : size] = '\0';
    /* The name before the last parenthesis is the program's own choice. Behind it: " S PARENT". */
    const char *behind = strrchr(text, ')');
    return behind == NULL || strlen(behind) < 4 ? 0 : atoi(behind + 4);
}

/* Reads the process table; -1 if it cannot be read whole. */
static int read_table(void) {
    int count = 0;
    DIR *directory = opendir("/proc");
    if (directory == NULL)
        return -1;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        int id = atoi(entry->d_name), parent = id > 0 ? parent_of(entry->d_name) : 0;
        if (parent <= 0)
            continue;
        if (count == MAXIMUM_PROCESSES || id > MAXIMUM_ID || parent > MAXIMUM_ID) {
            count = -1;
            break;
        }
        table[count].id = id;
        table[count++].parent = parent;
    }
    closedir(directory);
    return count;
}

/* Every process below this one into `found`, zombies included: one whose first thread has ended looks like a zombie
   too. Returns how many, or -1. */
static int find_descendants(void) {
    int size = read_table(), count = 0, own = getpid();
    is_below[own] = true;
    /* Most parents come before their children: few rounds are needed. */
    for (bool more = size > 0; more;) {
        more = false;
        for (int i = 0; i < size; i++) {
            if (is_below[table[i].parent] && !is_below[table[i].id]) {
                is_below[table[i].id] = more = true;
                found[count++] = table[i].id;
            }
        }
    }
    for (int i = 0; i < count; i++)
        is_below[found[i]] = false;
    return size < 0 ? -1 : count;
}

/* Stops all until two looks show nothing new: what stands still cannot fork. Returns how many, or -1. */
static int stop_all(void) {
    int count = 0;
    for (int round = 0, quiet = 0; round < MAXIMUM_STOP_ROUNDS && quiet < LOOKS && count >= 0; round++) {
        int size = find_descendants(), before = count;
        for (int i = 0; i < size; i++) {
            if (is_stopped[found[i]] || count == MAXIMUM_PROCESSES)
                continue;
            is_stopped[found[i]] = true;
            kill(found[i], SIGSTOP);
            stopped[count++] = found[i];
        }
        quiet = count == before ? quiet + 1 : 0;
        if (size < 0)
            quiet = LOOKS;
        if (size < 0 && count == 0)
            return -1;
    }
    for (int i = 0; i < count; i++)
        is_stopped[stopped[i]] = false;
    return count;
}

/* Returns whether nobody is left. */
static bool sweep(void) {
    struct timespec now, pause = {0, PAUSE_NANOSECONDS};
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (time_t deadline = now.tv_sec + SWEEP_SECONDS, looks = 0; looks < LOOKS;) {
        int count = stop_all();
        looks = count == 0 ? looks + 1 : 0;
        if (count == 0)
            continue;
        for (int i = 0; i < count; i++)
            kill(stopped[i], SIGKILL);
        reap();
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > deadline)
            return false;
        /* The kernel needs a moment to take them down. */
        nanosleep(&pause, NULL);
        reap();
    }
    return true;
}

/* Signals. */

/* Signals a group with the rights of the program's user: its own processes are all that this can reach. Nobody can
   signal us meanwhile: that goes by the real and the saved id. False if the group has nobody. */
static bool signal_as_user(pid_t group, int number) {
    if (setresuid(NO_USER, user, 0) < 0)
        exit(1);
    bool done = kill(-group, number) == 0;
    if (setresuid(0, 0, 0) < 0)
        exit(1);
    /* A change of ids sets it back. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return done;
}

/* The group in the foreground is the program's own choice. What is not of the leader's session is not listened to, nor
   is a terminal that another session took over; a group whose first process has ended can be told by nothing, and by
   its number it reaches nobody but processes of the same user. */
static void pass_signal(const struct demand *demand) {
    /* Before its exec the leader may have no group yet. */
    settle_exec();
    reap();
    /* As long as it was not reaped, its number is nobody else's. */
    if (leader_ended)
        return;
    pid_t session = demand->group > 1 ? getsid(demand->group) : 0;
    bool is_own = demand->group > 1 && demand->session == leader && (session == leader || session < 0);
    if (!is_own || !signal_as_user(demand->group, demand->signal))
        signal_as_user(leader, demand->signal);
}

static void obey(void) {
    struct demand demand;
    if (!read_whole(&demand, sizeof demand))
        exit(0);
    if (demand.signal > 0) {
        pass_signal(&demand);
        return;
    }
    /* A leader that ended before the kill has ended by itself. */
    reap();
    sweeping = true;
    tell(SWEPT, sweep(), 0);
}

/* The loop. */

static void note_child(int number) {
    /* It only has to interrupt the wait. */
    (void)number;
}

static void prepare(void) {
    struct sigaction on_child = {.sa_handler = note_child};
    sigset_t children;
    /* Nobody of another user may trace this process or read its memory. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* Orphans below this process become its children. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        exit(1);
    close_range(STDERR_FILENO + 1, ~0U, 0);
    /* What the first process ignores would stay so through exec. */
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigaction(SIGCHLD, &on_child, NULL);
    /* Its signal comes only while we wait. */
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
}

/* What is left of the time before the start is told. */
static struct timespec left_until_due(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t left = (int64_t)(due.tv_sec - now.tv_sec) * SECOND + due.tv_nsec - now.tv_nsec;
    return (struct timespec){0, left > 0 ? left : 0};
}

int main(void) {
    sigset_t none;
    sigemptyset(&none);
    prepare();
    if (!fork_leader())
        return 0;
    for (bool is_told_of = false; !childless;) {
        /* What comes before the leader has taken its order is the order. */
        struct pollfd ready[2] = {{order_taken ? FIRST_PROCESS : -1, POLLIN, 0}, {leader_news, POLLIN, 0}};
        struct timespec left = left_until_due();
        bool is_to_tell = order_taken && leader_news < 0 && !leader_ended && !is_told_of;
        int count = ppoll(ready, 2, is_to_tell ? &left : NULL, &none);
        if (count > 0 && ready[1].revents != 0)
            hear_leader();
        if (count > 0 && ready[0].revents != 0)
            obey();
        reap();
        left = left_until_due();
        if (is_to_tell && !leader_ended && left.tv_nsec == 0) {
            is_told_of = true;
            tell(STARTED, leader, 0);
        }
    }
    return 0;
}
