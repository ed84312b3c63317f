/* Another system for every program of a build, through LD_PRELOAD: folders list their entries in
 * reverse, the clock is ahead, the machine has another name. What comes out of a build must not
 * depend on any of these.
 *
 * TORCHMILL_VARIATION_SECONDS   what the wall clock is ahead by; the steady clocks stay
 * TORCHMILL_VARIATION_HOST      the name of the machine
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

/* The clock. */

static long ahead(void) {
  const char *text = getenv("TORCHMILL_VARIATION_SECONDS");
  return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = next("clock_gettime");
  int code = real(clock, out);
  if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) out->tv_sec += ahead();
  return code;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = next("gettimeofday");
  int code = real(out, zone);
  if (code == 0) out->tv_sec += ahead();
  return code;
}

/* The machine's name. */

int uname(struct utsname *out) {
  static int (*real)(struct utsname *);
  if (!real) real = next("uname");
  int code = real(out);
  const char *host = getenv("TORCHMILL_VARIATION_HOST");
  if (code == 0 && host) {
    strncpy(out->nodename, host, sizeof out->nodename - 1);
    out->nodename[sizeof out->nodename - 1] = 0;
  }
  return code;
}

int gethostname(char *out, size_t length) {
  struct utsname name;
  if (uname(&name) != 0) return -1;
  if (strlen(name.nodename) >= length) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(out, name.nodename);
  return 0;
}

/* Folders. On 64-bit machines `struct dirent` and `struct dirent64` are one. */

struct folder {
  DIR *dir;
  struct dirent64 **entries;
  size_t left;
  struct folder *next;
};

static struct folder *folders;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void forget(DIR *dir) {
  for (struct folder **at = &folders; *at; at = &(*at)->next) {
    struct folder *found = *at;
    if (found->dir != dir) continue;
    *at = found->next;
    /* Entries that were handed out stay: a caller may hold the last one. They are few and small. */
    free(found->entries);
    free(found);
    return;
  }
}

static struct folder *open_folder(DIR *dir) {
  static struct dirent64 *(*real)(DIR *);
  if (!real) real = next("readdir64");
  for (struct folder *f = folders; f; f = f->next)
    if (f->dir == dir) return f;
  struct folder *made = calloc(1, sizeof *made);
  if (!made) return 0;
  made->dir = dir;
  size_t room = 0;
  for (struct dirent64 *entry; (entry = real(dir));) {
    if (made->left == room) {
      room = room ? 2 * room : 64;
      struct dirent64 **grown = realloc(made->entries, room * sizeof *grown);
      if (!grown) abort();
      made->entries = grown;
    }
    struct dirent64 *copy = malloc(entry->d_reclen);
    if (!copy) abort();
    memcpy(copy, entry, entry->d_reclen);
    made->entries[made->left++] = copy;
  }
  made->next = folders;
  folders = made;
  return made;
}

struct dirent64 *readdir64(DIR *dir) {
  int before = errno;
  pthread_mutex_lock(&lock);
  struct folder *folder = open_folder(dir);
  struct dirent64 *entry = folder && folder->left ? folder->entries[--folder->left] : 0;
  pthread_mutex_unlock(&lock);
  errno = before;
  return entry;
}

struct dirent *readdir(DIR *dir) { return (struct dirent *)readdir64(dir); }

void rewinddir(DIR *dir) {
  static void (*real)(DIR *);
  if (!real) real = next("rewinddir");
  pthread_mutex_lock(&lock);
  forget(dir);
  pthread_mutex_unlock(&lock);
  real(dir);
}

int closedir(DIR *dir) {
  static int (*real)(DIR *);
  if (!real) real = next("closedir");
  pthread_mutex_lock(&lock);
  forget(dir);
  pthread_mutex_unlock(&lock);
  return real(dir);
}
