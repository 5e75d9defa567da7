# The compiled life's door: names, types and widths of the C headers. `door.py` beside it is the interpreted one.
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "upcall_machine.h" nogil:
    ctypedef char *mem_t
    ctypedef const char *src_t
    ctypedef char *dst_t
    ctypedef struct up_world:
        pass
    ctypedef up_world *world_t

    uint64_t ld8 "up_ld8"(mem_t m, uint64_t o)
    uint64_t ld16 "up_ld16"(mem_t m, uint64_t o)
    uint64_t ld32 "up_ld32"(mem_t m, uint64_t o)
    uint64_t ld64 "up_ld64"(mem_t m, uint64_t o)
    uint64_t lda32 "up_lda32"(mem_t m, uint64_t o)
    uint64_t lda64 "up_lda64"(mem_t m, uint64_t o)
    void st8 "up_st8"(mem_t m, uint64_t o, uint64_t v)
    void st16 "up_st16"(mem_t m, uint64_t o, uint64_t v)
    void st32 "up_st32"(mem_t m, uint64_t o, uint64_t v)
    void st64 "up_st64"(mem_t m, uint64_t o, uint64_t v)
    void str32 "up_str32"(mem_t m, uint64_t o, uint64_t v)
    void str64 "up_str64"(mem_t m, uint64_t o, uint64_t v)
    bint cas32 "up_cas32"(mem_t m, uint64_t o, uint64_t old, uint64_t val)
    bint cas64 "up_cas64"(mem_t m, uint64_t o, uint64_t old, uint64_t val)
    uint64_t xchg32 "up_xchg32"(mem_t m, uint64_t o, uint64_t v)
    uint64_t xchg64 "up_xchg64"(mem_t m, uint64_t o, uint64_t v)
    uint64_t faa32 "up_faa32"(mem_t m, uint64_t o, uint64_t v)
    uint64_t faa64 "up_faa64"(mem_t m, uint64_t o, uint64_t v)
    uint64_t for32 "up_for32"(mem_t m, uint64_t o, uint64_t v)
    uint64_t for64 "up_for64"(mem_t m, uint64_t o, uint64_t v)
    uint64_t fand32 "up_fand32"(mem_t m, uint64_t o, uint64_t v)
    uint64_t fand64 "up_fand64"(mem_t m, uint64_t o, uint64_t v)
    void wmb "up_wmb"()
    void rmb "up_rmb"()
    void wrmb "up_wrmb"()
    void mb "up_mb"()
    void prefetchw "up_prefetchw"(mem_t m, uint64_t o)
    uint64_t u64 "up_u64"(uint64_t v)
    uint64_t low32 "up_low32"(uint64_t v)
    uint64_t ctz64 "up_ctz64"(uint64_t v)
    void copy_in "up_copy_in"(mem_t m, uint64_t o, src_t src, uint64_t n)
    void copy_out "up_copy_out"(dst_t dst, mem_t m, uint64_t o, uint64_t n)
    src_t bytes_at "up_bytes_at"(mem_t m, uint64_t o, uint64_t n)
    void copy_words "up_copy_words"(dst_t dst, mem_t m, uint64_t o, uint64_t n)
    int futex_wait "up_futex_wait"(mem_t m, uint64_t o, uint64_t expected, int64_t timeout_ns)
    uint64_t futex_wake "up_futex_wake"(mem_t m, uint64_t o, uint64_t n)
    uint64_t now_ns "up_now_ns"()
    void pause "up_pause"()
    world_t world_new "up_world_new"(int file, uint64_t size, uint32_t nfifos)
    void world_free "up_world_free"(world_t w)
    mem_t world_base "up_world_base"(world_t w)
    int world_probe "up_world_probe"(world_t w)
    int world_locks "up_world_locks"(world_t w)
    int world_open "up_world_open"(world_t w, const char *folder, uint64_t tables)
    int open_held "up_open_held"(world_t w, const char *path, int flags)
    void close_held "up_close_held"(world_t w, int fd)
    void close_all_held "up_close_all_held"(world_t w)
    bint alive "up_alive"(world_t w, uint64_t name)
    int grow "up_grow"(world_t w, uint64_t o, uint64_t n)
    void populate "up_populate"(world_t w, uint64_t o, uint64_t n)
    uint64_t interrupt "up_interrupt"(world_t w, uint64_t vcoreid)
    int watch_forks "up_watch_forks"()
    bint forked "up_forked"(world_t w)

cdef extern from "upcall_signals.h" nogil:
    int arm "up_arm"(mem_t m, uint64_t o, uint64_t expected, uint64_t instead)
    int wake_fd "up_wake_fd"()
    int taken_from "up_taken_from"(int former)
    bint still_armed "up_still_armed"()
    void disarm "up_disarm"()
    int forget_wait "up_forget_wait"()

cdef extern from "upcall_signals.h":
    int set_wake_fd "up_set_wake_fd"(object function, int fd)
