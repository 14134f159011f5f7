/* Adds SLOWSYNC_US microseconds to every fdatasync, with which PostgreSQL flushes its log, while the
   file SLOWSYNC_FLAG exists: commits then take what they take on a cloud's disk. Used by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd) {
  static int (*real)(int);
  static const char *flag;
  static long us;
  if (!real) {
    const char *delay = getenv("SLOWSYNC_US");
    flag = getenv("SLOWSYNC_FLAG");
    us = delay ? atol(delay) : 0;
    real = dlsym(RTLD_NEXT, "fdatasync");
  }
  if (us && flag && access(flag, F_OK) == 0) {
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&pause, NULL);
  }
  return real(fd);
}
