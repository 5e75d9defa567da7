/* upcall_machine.h: the only door to shared memory and to the world. With upcall_signals.h beside it, the C of the project.
 *
 * Words: a segment is `mem_t`, the address of its first byte; a place in it is an offset. Loads and stores are relaxed
 * C11 atomics unless their name says otherwise; order is made by the four fences, in the seed's sense:
 *
 *   wmb   earlier writes before later writes            (release fence)
 *   rmb   earlier reads before later reads              (acquire fence)
 *   wrmb  earlier writes before later reads             (sequentially consistent fence)
 *   mb    everything before, before everything after    (sequentially consistent fence)
 *
 * The Python file of the same stem as `door.pxd` beside this header is the interpreted life's door.
 */
#ifndef UPCALL_MACHINE_H
#define UPCALL_MACHINE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef char *mem_t;
typedef const char *src_t;
typedef char *dst_t;

/* A build with UPCALL_DEATHS can be told to die at any of these steps; every other build has none of it. */
#ifdef UPCALL_DEATHS
#include "upcall_deaths.h"
#else
#define UP_STEP(what, at) ((void)(at))
#define UP_COPY(dst, src, n, at) memcpy(dst, src, n)
#endif

/* ---- typed access ------------------------------------------------------------------------------------------- */

#define UP_AT(type, m, o) ((type *)((m) + (o)))

#define UP_WIDTH(bits)                                                                                               \
    static inline uint64_t up_ld##bits(mem_t m, uint64_t o)                                                          \
    { UP_STEP("ld" #bits, o); return __atomic_load_n(UP_AT(uint##bits##_t, m, o), __ATOMIC_RELAXED); }               \
    static inline uint64_t up_lda##bits(mem_t m, uint64_t o)                                                         \
    { UP_STEP("lda" #bits, o); return __atomic_load_n(UP_AT(uint##bits##_t, m, o), __ATOMIC_ACQUIRE); }              \
    static inline void up_st##bits(mem_t m, uint64_t o, uint64_t v)                                                  \
    { UP_STEP("st" #bits, o); __atomic_store_n(UP_AT(uint##bits##_t, m, o), (uint##bits##_t)v, __ATOMIC_RELAXED); }  \
    static inline void up_str##bits(mem_t m, uint64_t o, uint64_t v)                                                 \
    { UP_STEP("str" #bits, o); __atomic_store_n(UP_AT(uint##bits##_t, m, o), (uint##bits##_t)v, __ATOMIC_RELEASE); }

UP_WIDTH(8)
UP_WIDTH(16)
UP_WIDTH(32)
UP_WIDTH(64)

/* Read-modify-writes are also full fences for the words around them. On x86 each is one by itself. Elsewhere sequential
 * consistency orders it among its like, and not the relaxed accesses before and after it: two fences do. */
#if defined(__x86_64__) || defined(__i386__)
#define UP_FULL() ((void)0)
#else
#define UP_FULL() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif

#define UP_CHANGE(word, bits, operation)                                                                             \
    static inline uint64_t up_##word##bits(mem_t m, uint64_t o, uint64_t v)                                          \
    { UP_STEP(#word #bits, o);                                                                                       \
      UP_FULL();                                                                                                     \
      uint64_t was = operation(UP_AT(uint##bits##_t, m, o), (uint##bits##_t)v, __ATOMIC_SEQ_CST);                    \
      UP_FULL();                                                                                                     \
      return was; }

#define UP_RMW(bits)                                                                                                 \
    static inline int up_cas##bits(mem_t m, uint64_t o, uint64_t old, uint64_t val)                                  \
    { uint##bits##_t want = (uint##bits##_t)old;                                                                     \
      UP_STEP("cas" #bits, o);                                                                                       \
      UP_FULL();                                                                                                     \
      int swapped = __atomic_compare_exchange_n(UP_AT(uint##bits##_t, m, o), &want, (uint##bits##_t)val, 0,          \
                                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                 \
      UP_FULL();                                                                                                     \
      return swapped; }                                                                                              \
    UP_CHANGE(xchg, bits, __atomic_exchange_n)                                                                       \
    UP_CHANGE(faa, bits, __atomic_fetch_add)                                                                         \
    UP_CHANGE(for, bits, __atomic_fetch_or)                                                                          \
    UP_CHANGE(fand, bits, __atomic_fetch_and)

UP_RMW(32)
UP_RMW(64)

static inline void up_wmb(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
static inline void up_rmb(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void up_wrmb(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void up_mb(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Asks for the line of `o`, to be written soon; a hint without meaning for order. */
static inline void up_prefetchw(mem_t m, uint64_t o) { __builtin_prefetch(m + o, 1, 3); }
static inline uint64_t up_u64(uint64_t v) { return v; }
static inline uint64_t up_low32(uint64_t v) { return v & 0xffffffffu; }
static inline uint64_t up_ctz64(uint64_t v) { return v ? (uint64_t)__builtin_ctzll(v) : 64; }

/* ---- bytes -------------------------------------------------------------------------------------------------- */

static inline void up_copy_in(mem_t m, uint64_t o, src_t src, uint64_t n)
{
    UP_STEP("copy_in", o);
    UP_COPY(m + o, src, n, o);
}

static inline void up_copy_out(dst_t dst, mem_t m, uint64_t o, uint64_t n)
{
    UP_STEP("copy_out", o);
    memcpy(dst, m + o, n);
}

/* Bytes of the segment as the source of a copy; the caller has checked that they lie in it. */
static inline src_t up_bytes_at(mem_t m, uint64_t o, uint64_t n)
{
    UP_STEP("bytes_at", o);
    (void)n;
    return m + o;
}

/* Most messages are short: a call-free copy of whole words; `dst` and `m + o` both have room for n rounded up to 8. */
static inline void up_copy_words(dst_t dst, mem_t m, uint64_t o, uint64_t n)
{
    UP_STEP("copy_words", o);
    for (uint64_t i = 0; i < n; i += 8)
        memcpy(dst + i, m + o + i, 8);
}

/* ---- waiting and waking ------------------------------------------------------------------------------------- */

/* 0: woken (or a spurious return); EAGAIN: the word was not `expected`; ETIMEDOUT; EINTR. timeout_ns < 0: no limit. */
static inline int up_futex_wait(mem_t m, uint64_t o, uint64_t expected, int64_t timeout_ns)
{
    struct timespec ts, *tp = NULL;
    UP_STEP("futex_wait", o);
    if (timeout_ns >= 0) {
        ts.tv_sec = timeout_ns / 1000000000;
        ts.tv_nsec = timeout_ns % 1000000000;
        tp = &ts;
    }
    if (syscall(SYS_futex, m + o, FUTEX_WAIT, (uint32_t)expected, tp, NULL, 0) == 0)
        return 0;
    return errno;
}

static inline uint64_t up_futex_wake(mem_t m, uint64_t o, uint64_t n)
{
    UP_STEP("futex_wake", o);
    long woken = syscall(SYS_futex, m + o, FUTEX_WAKE, (int)(n > 0x7fffffff ? 0x7fffffff : n), NULL, NULL, 0);
    return woken < 0 ? 0 : (uint64_t)woken;
}

static inline uint64_t up_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void up_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- the world: what a process holds beside its threads' names --------------------------------------------------- */

/* One attached segment: mapping and files. Forked children get none of it: a shared open file would keep our liveness
 * locks up after our death, a shared mapping would let them write in our name. The list, and all that a child must lose,
 * changes under the mutex only, which a fork takes first; so a child finds it whole. */
typedef struct up_world {
    int file;       /* the segment, for growing the pool */
    int probe;      /* a second open of it: asking for the locks of others, our own included */
    int locks;      /* a third: its liveness locks are ours */
    int dir;        /* the segment's directory, for the vcores' FIFOs */
    int forked;     /* this is a child of the process that attached: nothing here is its own */
    mem_t base;     /* the mapping */
    uint64_t size;
    int *held;      /* all files that belong to the attachment */
    uint32_t nheld, room;
    uint32_t nfifos; /* one for each vcore, and the watcher's */
    int *fifos;     /* write ends, opened at first use; -1: not yet */
    struct up_world *next;
} up_world;
typedef up_world *world_t;

static up_world *up_worlds = NULL;
static pthread_mutex_t up_worlds_mutex = PTHREAD_MUTEX_INITIALIZER;

static inline void up_before_fork(void) { pthread_mutex_lock(&up_worlds_mutex); }
static inline void up_after_fork(void) { pthread_mutex_unlock(&up_worlds_mutex); }

/* First thing in a forked child. In place of the mapping (MADV_DONTFORK: not inherited) comes memory of its own, all
 * zeros: what the child still reads or writes through the parent's objects harms nobody. */
static inline void up_in_child(void)
{
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    for (up_world *w = up_worlds; w; w = w->next) {
        if (w->base && mmap(w->base, w->size, PROT_READ | PROT_WRITE, kind, -1, 0) == MAP_FAILED)
            (void)!mmap(w->base, w->size, PROT_READ, kind, -1, 0); /* strict accounting refuses what can be written */
        for (uint32_t i = 0; i < w->nheld; i++)
            close(w->held[i]);
        for (uint32_t i = 0; i < w->nfifos; i++) {
            if (w->fifos[i] >= 0)
                close(w->fifos[i]);
            w->fifos[i] = -1;
        }
        w->nheld = 0;
        w->file = w->probe = w->locks = w->dir = -1;
        w->forked = 1;
    }
    up_worlds = NULL;
    up_after_fork();
}

/* Once per process, by the module that owns the worlds (front/port). */
static inline int up_watch_forks(void) { return pthread_atfork(up_before_fork, up_after_fork, up_in_child); }
static inline int up_forked(world_t w) { return w && w->forked; }

/* Notes a file that a forked child must close. 0, or an errno. The mutex is held. */
static inline int up_note_held(world_t w, int fd)
{
    if (w->nheld == w->room) {
        uint32_t room = w->room ? 2 * w->room : 8;
        int *more = (int *)realloc(w->held, room * sizeof(int));
        if (!more)
            return ENOMEM;
        w->held = more;
        w->room = room;
    }
    w->held[w->nheld++] = fd;
    return 0;
}

/* Opens a file of the attachment, with no fork between the open and the note. The descriptor, or a negative errno. */
static inline int up_open_held(world_t w, const char *path, int flags)
{
    up_before_fork();
    int fd = open(path, flags | O_CLOEXEC);
    int rc = fd < 0 ? errno : up_note_held(w, fd);
    if (fd >= 0 && rc)
        close(fd);
    up_after_fork();
    return rc ? -rc : fd;
}

/* Closes a held file; in a forked child the number may be another file's by now, and is left alone. */
static inline void up_close_held(world_t w, int fd)
{
    int found = 0;
    up_before_fork();
    for (uint32_t i = 0; i < w->nheld && !found; i++)
        if (w->held[i] == fd) {
            w->held[i] = w->held[--w->nheld];
            found = 1;
        }
    if (found) {
        w->file = w->file == fd ? -1 : w->file;
        w->probe = w->probe == fd ? -1 : w->probe;
        w->locks = w->locks == fd ? -1 : w->locks;
        w->dir = w->dir == fd ? -1 : w->dir;
        close(fd);
    }
    up_after_fork();
}

static inline void up_close_all_held(world_t w)
{
    while (w->nheld)
        up_close_held(w, w->held[w->nheld - 1]);
}

static inline void up_world_free(world_t w)
{
    if (!w)
        return;
    up_before_fork();
    for (up_world **at = &up_worlds; *at; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            break;
        }
    for (uint32_t i = 0; i < w->nheld; i++)
        close(w->held[i]);
    for (uint32_t i = 0; i < w->nfifos; i++)
        if (w->fifos[i] >= 0)
            close(w->fifos[i]);
    if (w->base)
        munmap(w->base, w->size);
    up_after_fork();
    free(w->held);
    free(w->fifos);
    free(w);
}

/* Maps `size` bytes of the segment `file`, which is the world's from now on. NULL with errno, and it is not. */
static inline world_t up_world_new(int file, uint64_t size, uint32_t nvcores)
{
    uint32_t nfifos = nvcores + 1;
    world_t w = (world_t)calloc(1, sizeof *w);
    int *fifos = (int *)malloc(sizeof(int) * nfifos);
    int rc = ENOMEM;
    if (w && fifos) {
        for (uint32_t i = 0; i < nfifos; i++)
            fifos[i] = -1;
        up_before_fork();
        void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        rc = base == MAP_FAILED ? errno : 0;
        if (!rc) {
            w->base = (mem_t)base;
            w->size = size;
            rc = madvise(base, size, MADV_DONTFORK) != 0 ? errno : up_note_held(w, file);
        }
        if (!rc) {
            w->file = file;
            w->probe = w->locks = w->dir = -1;
            w->fifos = fifos;
            w->nfifos = nfifos;
            w->next = up_worlds;
            up_worlds = w;
        } else if (w->base)
            munmap(base, size);
        up_after_fork();
    }
    if (rc) {
        free(w);
        free(fifos);
        errno = rc;
        return NULL;
    }
    return w;
}

static inline mem_t up_world_base(world_t w) { return w->base; }
static inline int up_world_probe(world_t w) { return w->probe; }
static inline int up_world_locks(world_t w) { return w->locks; }

/* Another open of the segment: by its descriptor, since its path may lead to another one by now. */
static inline int up_open_again(world_t w)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", w->file);
    return up_open_held(w, path, O_RDWR);
}

/* Makes [o, o+n) of the file real, so that no access can fault on a full file system. 0, or an errno (ENOSPC). What is real
 * stays as it is, also under others' hands; hence not posix_fallocate, which writes where the file system knows no better. */
static inline int up_grow(world_t w, uint64_t o, uint64_t n)
{
    int rc;
    UP_STEP("grow", o);
    if (!w)
        return 0;
    do
        rc = fallocate(w->file, 0, (off_t)o, (off_t)n) == 0 ? 0 : errno;
    while (rc == EINTR);
    return rc == EOPNOTSUPP ? 0 : rc; /* a file system that cannot be asked is taken for one with room */
}

/* Makes the first `tables` bytes real, also in a file that somebody has put in the segment's place, and opens the files
   beside the mapping. 0, or an errno; then `file` is the caller's again. */
static inline int up_world_open(world_t w, const char *folder, uint64_t tables)
{
    int rc = up_grow(w, 0, tables);
    w->probe = rc ? -rc : up_open_again(w);
    w->locks = w->probe < 0 ? w->probe : up_open_again(w);
    w->dir = w->locks < 0 ? w->locks : up_open_held(w, folder, O_RDONLY | O_DIRECTORY);
    if (w->dir >= 0)
        return 0;
    up_before_fork();
    w->held[0] = w->held[--w->nheld]; /* `file` was the first */
    up_after_fork();
    return -w->dir;
}

/* Does the kernel still keep the liveness lock of `name`? One byte for each name, slot and generation, far behind the
   data: the lock of a dead name is nobody else's, though its slot may have been taken again. */
#define UP_NAME_LOCKS (1LL << 41)
static inline int up_alive(world_t w, uint64_t name)
{
    struct flock fl;
    UP_STEP("alive", name);
    if (!w)
        return 1;
    memset(&fl, 0, sizeof fl);
    fl.l_type = F_WRLCK;
    fl.l_whence = SEEK_SET;
    fl.l_start = UP_NAME_LOCKS + (off_t)(name & 0xFFFFFFFF);
    fl.l_len = 1;
    if (fcntl(w->probe, F_OFD_GETLK, &fl) != 0)
        return 1; /* cannot tell: never take what may be alive */
    return fl.l_type != F_UNLCK;
}

/* Maps what the caller has just made real and is going to use: one call for a fault per 4 KiB. An older kernel refuses. */
static inline void up_populate(world_t w, uint64_t o, uint64_t n)
{
    UP_STEP("populate", o);
#ifdef MADV_POPULATE_WRITE
    if (w && w->base)
        madvise(w->base + o, n, MADV_POPULATE_WRITE);
#endif
}

/* Interrupts the host of a vcore, or wakes the watcher (the number behind the last vcore): one byte into its FIFO, never
 * blocking. A full FIFO is already readable: the byte is not needed. Returns the number of system calls made, 0 if nobody
 * reads or the FIFO cannot be opened. Without a world, in a test's plain memory, one. */
static inline uint64_t up_interrupt(world_t w, uint64_t vcoreid)
{
    char name[24], byte = 1;
    uint64_t calls = 1;
    UP_STEP("interrupt", vcoreid);
    if (!w)
        return 1;
    if (vcoreid >= w->nfifos)
        return 0;
    if (w->fifos[vcoreid] < 0) {
        char digits[12];
        int n = 0, at = 2;
        uint64_t v = vcoreid;
        do
            digits[n++] = (char)('0' + v % 10);
        while (v /= 10);
        name[0] = 'v';
        name[1] = 'c';
        while (n)
            name[at++] = digits[--n];
        name[at] = 0;
        if (vcoreid == w->nfifos - 1)
            strcpy(name, "watch");
        w->fifos[vcoreid] = openat(w->dir, name, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
        calls++;
        if (w->fifos[vcoreid] < 0)
            return 0; /* nobody reads: no host, nothing to interrupt */
    }
    UP_STEP("write", vcoreid);
    if (write(w->fifos[vcoreid], &byte, 1) < 0 && errno != EAGAIN)
        return 0;
    return calls;
}

#endif
