/* upcall_deaths.h: a build that dies, or stops, before any access to shared memory or to the world that a test names.
 *
 * Part of `upcall_machine.h` when that is compiled with UPCALL_DEATHS, and of no build that is used. Each compiled module
 * has its own copy of these functions, so what they share lies in a file that all of them map: the one that
 * UPCALL_DEATHS_PAGE names. A process writes its pid there and is counted from then on; before the step number `at` it
 * sends itself `signal`. Others read there how far it came.
 */
#ifndef UPCALL_DEATHS_H
#define UPCALL_DEATHS_H

#include <signal.h>
#include <stdio.h>

typedef struct up_deaths {
    uint32_t pid;    /* who is counted; 0: nobody */
    uint32_t signal; /* what it sends itself */
    uint64_t at;     /* before which step, counted from 1; 0: never */
    uint64_t seen;   /* steps so far */
    uint64_t offset; /* where the step led to before which it was sent: an offset, slot or vcore */
    char what[16];   /* and which one it was */
} up_deaths;

static up_deaths *up_deaths_page = NULL;

__attribute__((constructor)) static void up_deaths_map(void)
{
    const char *path = getenv("UPCALL_DEATHS_PAGE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page;
    if (fd < 0)
        return;
    page = mmap(NULL, sizeof(up_deaths), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        up_deaths_page = (up_deaths *)page;
}

/* One thread of one process is counted at a time, so nothing here needs to be atomic. */
static void up_step(const char *what, uint64_t offset)
{
    volatile up_deaths *d = up_deaths_page;
    if (!d || d->pid == 0 || d->pid != (uint32_t)getpid() || ++d->seen != d->at)
        return;
    d->offset = offset;
    snprintf(up_deaths_page->what, sizeof up_deaths_page->what, "%s", what);
    /* To this very thread: the signal has come before the call returns. */
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), (int)d->signal);
}

#define UP_STEP(what, at) up_step(what, at)
/* Half of it, and then the rest: who dies in between leaves a payload that is torn. */
#define UP_COPY(dst, src, n, at) up_copy_halves((char *)(dst), src, n, at)

static void up_copy_halves(char *dst, const char *src, uint64_t n, uint64_t at)
{
    memcpy(dst, src, n / 2);
    up_step("copy_half", at);
    memcpy(dst + n / 2, src + n / 2, n - n / 2);
}

#endif
