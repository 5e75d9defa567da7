# Every number of the protocol and of the segment's format, once. Compiled modules cimport them; `const.py` beside this
# file reads the same lines for everyone else. Offsets are in bytes from the start of their record.

cdef enum:
    # ---- slot and page words: state:4 | redeliveries:4 | generation:24 | name:32 ----------------------------------
    # A slot whose word is exactly (DONE, generation - 1, no name) is EMPTY in this generation of its page: nothing has
    # to be written to make a used page new.
    DONE = 0
    CLAIMED = 1
    READY = 2
    TAKEN = 3
    PAGE_FREE = 0
    PAGE_CLAIMED = 1
    PAGE_LINKED = 2
    GEN_MASK = 0xFFFFFF

    # ---- names: attach slot:12 | generation:20 --------------------------------------------------------------------
    SLOT_MASK = 0xFFF
    SLOT_GEN_MASK = 0xFFFFF

    # ---- a bit in a host's hand: name:32 | mailbox + 1:22 | event type:10 -----------------------------------------
    BIT_MBOX_SHIFT = 10
    BIT_TYPE_MASK = 0x3FF

    # ---- a place in a mailbox: page + 1:20 | slot:12 | generation:24 ----------------------------------------------
    PAGE_MASK = 0xFFFFF

    # ---- results --------------------------------------------------------------------------------------------------
    OK = 0
    FULL = 1            # no room: a page, a block or the mailbox's own limit
    BUSY = 2            # the bound on own steps is reached, nothing sent
    GONE = 3            # the process is dying
    BAD_QUEUE = 4       # queue number outside the table, or of a queue that is not there
    BAD_VCORE = 5
    BAD_MAILBOX = 6
    BAD_TYPE = 7
    CORRUPT = 8         # the segment holds what no protocol step writes
    ABSENT = 9          # no such dead letter any more: somebody else was quicker

    # ---- limits ---------------------------------------------------------------------------------------------------
    MAX_VCORES = 1024
    MAX_QUEUES = 1024
    MAX_TYPES = 1024
    MAX_SLOTS = 4096
    NAME_BYTES = 64
    TYPE_PROGRAM = 32   # first number of a type that the program registers by name
    MAX_NR_EVENT = 32   # entries in the table of kernel events
    NO_VCORE = 0xFFFF   # the actor is not a vcore
    WALK_MAX = 4096     # own steps in one walk over pages before BUSY
    LIST_TRIES_MAX = 10 # the seed's bound on chasing a list's head
    WATCH_MAX = 64      # words that a spinning vcore looks at
    LONG_NS = 20000     # a handler that took longer makes its queue a slow one
    FAST_STREAK = 8     # so many short handlers in a row make its queue a fast one
    NOT_SEEN = 0xFFFF   # of a page: nothing was in hand, but some messages wait to be delivered again
    FAILING = 5         # deaths in a row soon after the start: reported, and shown as a state
    SKIP_ASK = 32       # unfinished slots that a consumer passes over before it asks whether their senders live

    # ---- header (page 0 of the file) ------------------------------------------------------------------------------
    HDR_MAGIC = 0
    HDR_ABI = 8
    HDR_BYTES = 12
    HDR_FILE_SIZE = 16
    HDR_MAX_VCORES = 24
    HDR_MAX_QUEUES = 28
    HDR_MAX_TYPES = 32
    HDR_MAX_SLOTS = 36
    HDR_PAGE_SLOTS = 40
    HDR_NR_PAGES = 44
    HDR_NR_SPANS = 48
    HDR_CHECK = 52      # u32 CRC-32 of the bytes before it: the geometry is what its maker wrote
    HDR_CREATION = 56   # a random number: tells this segment from a later one of the same name
    HDR_NAME = 64
    HEADER_SIZE = 4096
    ABI = 5

    # ---- attach slot ----------------------------------------------------------------------------------------------
    SLOT_STRIDE = 128
    AS_WORD = 0         # u64 generation:20 | attached:1 at bit 32
    AS_PID = 8
    AS_TID = 12
    AS_ROLE = 16
    AS_SINCE = 24
    AS_SENT = 64        # counters, written by the attached thread only
    AS_INDIRS = 72
    AS_WAKES = 80
    AS_SYSCALLS = 88
    AS_WAITS = 96
    AS_DEFINITION = 104 # u64 of a vcore's host: a number for the definition that it runs
    ROLE_SENDER = 1
    ROLE_VCORE = 2
    ROLE_SUPERVISOR = 3
    ROLE_READER = 4
    ROLE_WATCHER = 5

    # ---- procinfo -------------------------------------------------------------------------------------------------
    PI_STATE = 0        # u64 state:8 | epoch:56
    PI_NUM_VCORES = 8
    PI_CORES = 16       # at most so many vcores online
    PI_STOP = 24        # u32 0 | STOP_DRAIN | STOP_NOW; a futex
    PI_SPIN_NS = 32
    PI_PREEMPT_NS = 40
    PI_LOCK = 64        # proc_lock: owner's name:32 | epoch:32
    PI_DRAINERS = 128   # u32 how many wait for a drain
    PI_DRAIN_SEQ = 132  # u32 futex
    PI_NR_QUEUES = 192
    PI_NR_TYPES = 196
    PI_TABLES = 208     # u64 a number for the definition's queues, types and kernel events, as its owner wrote them
    PI_PAGES_REAL = 256 # u64 pages backed by memory
    PI_SPANS_REAL = 264
    PI_POOL_ROOM = 272  # u32 futex: raised when a page or block is freed while somebody waits
    PI_POOL_WAITERS = 276
    PI_WANT_ROOM = 280  # u32 not 0: a vcore holds a message that there was no room to make a dead letter
    PI_SUPERVISOR = 320 # u64 name of the watcher
    PI_SUPERVISOR_PID = 328
    PI_WATCH = 332      # u32 1: the watcher sleeps, whoever makes a vcore run tells it
    PI_WATCHER_PID = 336 # u32 the worker that watches the others while there is no supervisor
    PI_SOURCES = 344    # u32 rises with every change of the table of sources
    PI_KERNEL_EVTS = 384 # u32[MAX_NR_EVENT]: queue number + 1
    PI_SPANS_FREED = 512 # u64[SMALL_CLASSES]: the span + 1 where a block of the class was given back last; a hint
    PROCINFO_SIZE = 1024

    P_NEW = 0
    P_CREATED = 1
    P_RUNNABLE_S = 2
    P_RUNNING_S = 3
    P_WAITING = 4
    P_RUNNABLE_M = 5
    P_RUNNING_M = 6
    P_DYING = 7
    STOP_DRAIN = 1
    STOP_NOW = 2

    # ---- vcoremap: one u64 per vcore: state:4 | sequence:28 | name:32; the low half is the host's futex word --------
    VC_NOHOST = 0       # inactive, and nobody hosts it
    VC_OFFLINE = 1      # inactive; its host sleeps, or is about to
    VC_STARTING = 2     # a core is given (doing: the giver's name; the wake may not have been issued)
    VC_STARTED = 3      # a core is given (done: the wake has been issued)
    VC_ONLINE = 4
    VC_PREEMPTED = 5    # its core was taken
    VC_BULK = 6         # taken together with all others
    VC_AWAY = 7         # its host is stopped or hangs: taken over; only the host itself comes back from here
    VC_SEQ_MASK = 0xFFFFFFF

    # ---- VCPD -----------------------------------------------------------------------------------------------------
    VCPD_STRIDE = 512
    VCPD_FLAGS = 0      # u32
    VCPD_NOTIF_PENDING = 64
    VCPD_NOTIF_DISABLED = 128
    VCPD_HOST = 192     # u64 name of the host
    VCPD_HANDLED = 256  # counters, written by the host only
    VCPD_BATCHES = 264
    VCPD_ERRORS = 272
    VCPD_UNHANDLED = 280
    VCPD_PARKS = 288
    VCPD_WAKEUPS = 296
    VCPD_NOTIFS = 304
    VCPD_SYSCALLS = 312
    VCPD_REDELIVERED = 320
    VCPD_DROPPED = 328
    VCPD_RESTARTS = 336
    VCPD_BIT = 344      # u64 the bit whose handler runs, in its host's hand; 0: none
    VCPD_DEAD_LETTERS = 352 # counters again
    VCPD_REPORTED = 360
    VCPD_TAKEN_OVER = 368 # how often its core was taken because its host did not move
    VCPD_LEAVE = 400    # u64 name of the host that is asked to leave
    VCPD_FAILS = 408    # u64 deaths in a row shortly after the start
    VC_K_LOCK = 1
    VC_PREEMPTED_FLAG = 2
    VC_CAN_RCV_MSG = 4
    VC_UTHREAD_STEALING = 8
    VC_SCP_NOVCCTX = 16
    VC_LONG_HANDLER = 32 # in a handler that may take long: who sends news to it asks for one more core
    VC_IN_POLL = 64     # its host sleeps in an event loop's poll: it is woken through its FIFO, not its word
    VC_FULL = 128       # as many tasks as it may have: takes nothing from queues whose handlers are tasks

    # ---- event queue ----------------------------------------------------------------------------------------------
    EVQ_STRIDE = 256
    EVQ_FLAGS = 0       # u32
    EVQ_VCORE = 4       # u32, written by ROUNDROBIN
    EVQ_MBOX = 8        # u32 mailbox number + 1; 0: a vcore's
    EVQ_USED = 12       # u32 1: this queue exists
    EVQ_ON_FULL = 16
    EVQ_ON_DEATH = 20
    EVQ_MAX_REDELIVERIES = 24
    EVQ_ALERT = 64      # u64 alert_pending: state:4 | name:32 << 32
    EVQ_NAME = 128
    ALERT_NONE = 0
    ALERT_DOING = 1     # an indirection is being sent, by the named sender: do not rely on it
    ALERT_DONE = 2      # an indirection lies in a mailbox that somebody will look at
    ALERT_POLLED = 3    # the named host looks at this queue by itself, and again after it takes this back
    ON_FULL_BLOCK = 0
    ON_FULL_RAISE = 1
    ON_FULL_BIT = 2
    ON_DEATH_REDELIVER = 0
    ON_DEATH_DEAD_LETTER = 1
    ON_DEATH_REPORT = 2
    REDELIVERIES_USUAL = 3 # of mail to a vcore, which no queue says anything about
    REDELIVERIES_MAX = 14 # the slot word's counter has four bits

    # ---- source: an alarm, a tap, a watch, a call, a signal ------------------------------------------------------------
    NR_SOURCES = 2048
    SOURCE_STRIDE = 128
    SR_WORD = 0         # u64 state:4 | generation:24 << 8 | name:32 << 32
    SR_KIND = 8         # u32
    SR_TYPE = 12        # u32 event type
    SR_QUEUE = 16       # u32 queue + 1; 0: the one registered for the type
    SR_FLAGS = 20       # u32
    SR_VALUE = 24       # u64 the program's own
    SR_BASE = 32        # u64 alarm: when it is due first, ns; watch: when the process started, ticks
    SR_EVERY = 40       # u64 alarm: period, ns; 0: once
    SR_KEY = 48         # u64 not 0: made by a definition, which knows it by this number
    SR_REPLACES = 56    # u64 id of the source in whose place this one comes; 0: none
    SR_MAKER = 64       # u64 name of the thread that made it
    SR_PID = 72         # u64 watch: whose end; others: the maker's process
    SR_COUNT = 80       # u64 generation:24 << 40 | count:40: periods that are over, or events sent
    SR_NAME = 88        # 40 bytes: what is called, zero-terminated
    SR_NAME_BYTES = 40
    SOURCE_FREE = 0
    SOURCE_CLAIMED = 1  # being written by the named actor
    SOURCE_SET = 2
    SOURCE_FIRING = 3   # the named actor sends its event
    SOURCE_SPENT = 4    # of a definition, and over
    SOURCE_GEN_SHIFT = 16 # id: index:16 | generation:24
    KIND_ALARM = 1
    KIND_TAP = 2
    KIND_WATCH = 3
    KIND_CALL = 4
    KIND_SIGNAL = 5
    SIGNAL_KEY = 0x40000000 # SR_KEY of a signal: with its number
    TAP_READ = 1        # SR_FLAGS of a tap, and arg1 of its event
    TAP_WRITE = 2
    TAP_HANGUP = 4
    TAP_ERROR = 8
    TAP_ONCE = 16
    ALARM_WALL = 32     # by the wall clock; else by the time since boot
    WATCH_CHILD = 64    # a child of its maker, who can tell its status
    CALL_DONE = 0       # arg1 of a call's event
    CALL_DIED = 1       # the worker that called has died, and nobody knows how
    CALL_KILLED = 0x100 # it has died of the signal that is added
    CALL_EXITED = 0x200 # it has exited with the code that is added

    # ---- mailbox --------------------------------------------------------------------------------------------------
    MBOX_STRIDE = 512
    MB_HEAD = 0         # u64 place: everything before it is done
    MB_TAIL = 64        # u64 place: a hint, never ahead of the first empty slot
    MB_LIMIT = 128      # u64 0: none
    MB_ROOM = 136       # u32 futex, raised when room appears while somebody waits
    MB_ROOM_WAITERS = 140
    MB_RESCAN = 144     # u64 raised when a slot behind some cursor became READY again
    MB_UNLINKED = 152   # u64 raised when a page has been taken out of the chain behind its first
    MB_CHECK_BITS = 192
    MB_BITMAP = 256     # MAX_TYPES bits
    MB_BITMAP_WORDS = 16

    # ---- page and slot --------------------------------------------------------------------------------------------
    PAGE_HEADER = 128
    PG_WORD = 0
    PG_SEQ = 8
    PG_NEXT = 16        # u64 place; with LINK_LEAVING: this page leaves its chain, and the link changes no more
    LINK_LEAVING = 0x100000
    PG_MBOX = 24
    PAGE_SLOTS = 255
    SLOT_SIZE = 128
    SL_WORD = 0
    SL_TYPE = 8         # u16
    SL_ARG1 = 10        # u16
    SL_ARG2 = 12        # u32
    SL_ARG3 = 16
    SL_ARG4 = 24
    SL_LEN = 32         # u32 payload bytes
    SL_QUEUE = 36       # u16 queue number + 1
    SL_FROM = 38        # u16 of a dead letter: the mailbox that it was taken from + 1
    SL_BLOCK = 40       # u64 block reference when SL_LEN > INLINE_MAX, else the first inline bytes
    SL_INLINE = 40
    INLINE_MAX = 88
    PAGES_CHUNK = 32    # pages made real at a time

    # ---- arena ----------------------------------------------------------------------------------------------------
    SPAN_SIZE = 65536
    SPAN_STRIDE = 2176  # table record: 64 bytes, then 128 blocks of 16
    SP_WORD = 0         # u64 state:4 | class:4 | generation:24 | name:32
    SP_SLOT = 8         # u64 place of the slot that a large block is for
    SP_COUNT = 16       # u64 spans in a large block
    SP_HEAD = 24        # u64 span number of the head, in the others
    SP_BLOCKS = 64
    BLOCK_STRIDE = 16
    BK_WORD = 0         # u64 state:4 | generation:24 << 8 | name:32
    BK_SLOT = 8
    SPAN_FREE = 0
    SPAN_CLAIMED = 1
    SPAN_SMALL = 2
    SPAN_LARGE = 3
    SPAN_BODY = 4
    SPAN_LEAVING = 5    # carved, and the named actor looks whether all its blocks are free
    BLOCK_FREE = 0
    BLOCK_HELD = 1
    SMALL_SHIFT = 9     # the smallest class: 512 bytes
    SPANS_TRIED = 16    # spans looked into before a new one is carved
    SMALL_CLASSES = 7   # 512 .. 32768
    BLOCK_LARGE = 255   # block number in a reference to a large block

    # ---- delivery flags of an event queue (the seed's) --------------------------------------------------------------
    EVENT_IPI = 0x00001
    EVENT_NOMSG = 0x00002
    EVENT_INDIR = 0x00004
    EVENT_FALLBACK = 0x00008
    EVENT_SPAM_PUBLIC = 0x00010
    EVENT_VCORE_PRIVATE = 0x00020
    EVENT_VCORE_MUST_RUN = 0x00040
    EVENT_NOTHROTTLE = 0x00080
    EVENT_ROUNDROBIN = 0x00100
    EVENT_VCORE_APPRO = 0x00200
    EVENT_JUSTHANDLEIT = 0x00400
    EVENT_THREAD = 0x00800
    EVENT_SPAM_FLAGS = 0x00041  # IPI and VCORE_MUST_RUN travel with a spammed message

    # ---- event types (the seed's) -----------------------------------------------------------------------------------
    EV_NONE = 0
    EV_PREEMPT_PENDING = 1
    EV_GANG_PREEMPT_PENDING = 2
    EV_VCORE_PREEMPT = 3
    EV_GANG_RETURN = 4
    EV_USER_IPI = 5
    EV_PAGE_FAULT = 6
    EV_ALARM = 7
    EV_EVENT = 8
    EV_FREE_APPLE_PIE = 9
    EV_SYSCALL = 10
    EV_CHECK_MSGS = 11
    EV_POSIX_SIGNAL = 12
