/* upcall_signals.h: the main thread's waits, over which no signal is slept.
 *
 * Python's C handler only notes a signal; the main thread looks at the notes (PyErr_CheckSignals). One that came after
 * that look and before the system call would be slept over, and a futex takes no signal mask. So the awaited word itself
 * changes when a signal comes:
 *
 *   whatever signal Python handles, in whatever thread: Python's C handler notes it, then writes a byte to Python's
 *       wake-up fd, which is a pipe of ours while the main thread waits (front/port sets it, and gives it back)
 *   the kernel sends SIGURG to the thread that waits (O_ASYNC and F_SETSIG at the pipe's other end)
 *   up_on_urgent, there: changes the word, if it is still what the wait expects
 *
 * Order of the waiting thread: arm, set the wake-up fd, look at the notes, wait on the word. Noted before the fd is set,
 * a signal is found by the look; noted after it, the word has changed before the system call (EAGAIN), or the sleep is
 * interrupted (EINTR). SIGURG is taken for good at the first wait, and handed on to whoever had it. */
#ifndef UPCALL_SIGNALS_H
#define UPCALL_SIGNALS_H

#include <Python.h>
#include "upcall_machine.h"
#include <signal.h>

static struct {
    volatile sig_atomic_t armed;   /* a signal changes the word */
    volatile sig_atomic_t waiting; /* how many waits, one inside the other's signal handlers; their fd is our pipe */
    volatile sig_atomic_t held;    /* the pipe has bytes for `former` */
    int reader, writer;            /* the pipe, of this process; -1: none yet */
    int former;                    /* Python's wake-up fd outside of waits; -1: none */
    pid_t tid;                     /* who waits */
    uint32_t *word, expected, instead;
    struct sigaction chained;      /* who had SIGURG */
} up_wait = {.reader = -1, .writer = -1, .former = -1};

/* What was written to the wake-up fd meanwhile, to whom it was for. */
static inline void up_pass_on(void)
{
    char bytes[64];
    ssize_t n;
    while ((n = read(up_wait.reader, bytes, sizeof bytes)) > 0)
        if (up_wait.former >= 0)
            (void)!write(up_wait.former, bytes, (size_t)n);
}

static void up_on_urgent(int signum, siginfo_t *info, void *context)
{
    /* Against two that hand on to each other; initial-exec, since a handler must not allocate it. */
    static __thread int inside __attribute__((tls_model("initial-exec")));
    int saved = errno;
    if (up_wait.waiting)
        up_wait.held = 1;
    else if (info->si_code == POLL_IN && info->si_fd == up_wait.reader)
        up_pass_on();
    if (up_wait.armed && syscall(SYS_gettid) == up_wait.tid) {
        uint32_t expected = up_wait.expected;
        up_wait.armed = 0;
        __atomic_compare_exchange_n(up_wait.word, &expected, up_wait.instead, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    /* Handed on even if the pipe raised it: of two that come together the kernel keeps one. */
    if (!inside++) {
        if (up_wait.chained.sa_flags & SA_SIGINFO)
            up_wait.chained.sa_sigaction(signum, info, context);
        else if (up_wait.chained.sa_handler != SIG_DFL && up_wait.chained.sa_handler != SIG_IGN)
            up_wait.chained.sa_handler(signum);
    }
    inside--;
    if (up_wait.waiting) {
        /* Python's handler, if it was that, has written to the pipe: the SIGURG of that would come without end. Whatever
         * else came with it is in the note that the handler has left. */
        struct timespec now = {0, 0};
        uint64_t urgent = 1ull << (SIGURG - 1);
        syscall(SYS_rt_sigtimedwait, &urgent, NULL, &now, sizeof urgent);
    }
    errno = saved;
}

/* Whoever has set a handler for SIGURG since is the one to hand on to. */
static inline int up_take_urgent(void)
{
    struct sigaction now, ours;
    if (sigaction(SIGURG, NULL, &now))
        return errno;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == up_on_urgent)
        return 0;
    up_wait.chained = ours = now;
    ours.sa_sigaction = up_on_urgent;
    ours.sa_flags = (now.sa_flags & SA_RESTART) | SA_SIGINFO | SA_ONSTACK;
    if (!(now.sa_flags & SA_SIGINFO) && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN))
        ours.sa_flags |= SA_RESTART; /* SIGURG has ended nobody's system call so far */
    return sigaction(SIGURG, &ours, NULL) ? errno : 0;
}

static inline int up_open_pipe(void)
{
    struct f_owner_ex owner = {F_OWNER_TID, (pid_t)syscall(SYS_gettid)};
    int ends[2];
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC))
        return errno;
    if (fcntl(ends[0], F_SETOWN_EX, &owner) || fcntl(ends[0], F_SETSIG, SIGURG)
        || fcntl(ends[0], F_SETFL, O_NONBLOCK | O_ASYNC)) {
        int error = errno;
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    up_wait.tid = owner.pid;
    up_wait.reader = ends[0];
    up_wait.writer = ends[1];
    return 0;
}

/* A wait of the main thread begins, in which a signal changes the word at `o` from `expected` to `instead`, once
 * Python's wake-up fd is `up_wake_fd()`. 0, or an errno: no wait. */
static inline int up_arm(mem_t m, uint64_t o, uint64_t expected, uint64_t instead)
{
    int error;
    up_wait.armed = 0;
    if ((up_wait.reader < 0 && (error = up_open_pipe())) || (error = up_take_urgent()))
        return error;
    up_wait.word = UP_AT(uint32_t, m, o);
    up_wait.expected = (uint32_t)expected;
    up_wait.instead = (uint32_t)instead;
    up_wait.waiting++;
    up_wait.armed = 1;
    return 0;
}

static inline int up_wake_fd(void) { return up_wait.writer; }

/* Sets Python's wake-up fd, -1 if the file was closed meanwhile; returns the former one. Python exports its own function
 * for this since 3.13. Before that it is `function`, signal.set_wakeup_fd, called without the interpreter's way to it: this
 * is on a waking vcore's way to its handler, where all code is cold. */
static inline int up_set_wake_fd(PyObject *function, int fd)
{
#if PY_VERSION_HEX >= 0x030D0000
    (void)function;
    return PySignal_SetWakeupFd(fd >= 0 && fcntl(fd, F_GETFD) < 0 ? -1 : fd);
#else
    static PyObject *none; /* the arguments (-1) */
    int plain = PyCFunction_Check(function) && PyCFunction_GET_FLAGS(function) == (METH_VARARGS | METH_KEYWORDS);
    PyObject *arguments, *found;
    int former = -1;
    if (!none && !(none = Py_BuildValue("(i)", -1)))
        goto failed;
    arguments = fd < 0 ? Py_NewRef(none) : Py_BuildValue("(i)", fd);
    if (!arguments)
        goto failed;
    if (plain)
        found = ((PyCFunctionWithKeywords)(void (*)(void))PyCFunction_GET_FUNCTION(function))(
            PyCFunction_GET_SELF(function), arguments, NULL);
    else
        found = PyObject_Call(function, arguments, NULL);
    Py_DECREF(arguments);
    if (found) {
        former = (int)PyLong_AsLong(found);
        Py_DECREF(found);
        return former;
    }
failed:
    PyErr_Clear();
    return fd < 0 ? -1 : up_set_wake_fd(function, -1);
#endif
}

/* Whom the wake-up fd was taken from. Returns who gets it back: in a wait inside another that is our pipe. In any other
 * somebody has closed his without a word, and its number is our pipe's now. */
static inline int up_taken_from(int former)
{
    if (former != up_wait.writer)
        return up_wait.former = former;
    return up_wait.waiting > 1 ? former : (up_wait.former = -1);
}

/* After the look: no signal has come since `up_arm`, and no handler that ran has waited itself. */
static inline int up_still_armed(void) { return up_wait.armed; }

/* The wait has ended, and the wake-up fd is whose it was. */
static inline void up_disarm(void)
{
    up_wait.armed = 0;
    if (up_wait.waiting && --up_wait.waiting == 0 && up_wait.held) {
        up_wait.held = 0;
        up_pass_on();
    }
}

/* A forked child's main thread is another: the pipe is its parent's. The wake-up fd that it has to give back, or -2. */
static inline int up_forget_wait(void)
{
    int owed = up_wait.waiting ? up_wait.former : -2;
    up_wait.armed = up_wait.waiting = up_wait.held = 0;
    up_wait.reader = up_wait.writer = -1;
    return owed;
}

#endif
