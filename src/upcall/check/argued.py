"""What comments in the protocol's sources argue, apart from fences, releases and owner tests: looks again (AGAIN), orders of
two steps (MOVED), acquires and exchanges (LOADS), and single steps (STEPS). Each entry names a file, a function, and a text
that stands there once. And, for what no scenario can show to be needed, why it stays (WHY).
"""

from __future__ import annotations

EVENT, PROC, UCQ, PAGES, ARENA = "kern/event.py", "kern/proc.py", "kern/ucq.py", "kern/pages.py", "kern/arena.py"
SOURCE, ENDING = "kern/source.py", "parlib/ending.py"
VCORE, MBOX, RECOVER, DEAD, WATCH, PASSING = (
    "parlib/vcore.py", "parlib/mbox.py", "parlib/recover.py", "parlib/dead.py", "parlib/watch.py", "parlib/full.py",
)  # fmt: skip

AGAIN: list[tuple[str, str, str, str]] = [
    (EVENT, "set_bit", "lda32(s.mem, at + MB_CHECK_BITS) != 0", "True"),
    (EVENT, "try_spam_vcore", "can_msg_vcore(s, vcoreid) and vcore_will_look(s, vcoreid)", "True"),
    (EVENT, "try_spam_vcore", "vcore_will_look(s, vcoreid)", "True"),
    (EVENT, "spam_list_member", "startcore(s, v)", "True"),
    (EVENT, "spam_list_member", "vcore_will_look(s, v)", "True"),
    (EVENT, "ultimate_fallback", "fallback_vcore(s, vcoreid) == NO_VCORE", "True"),
    (EVENT, "ultimate_fallback", "startcore(s, v)", "True"),
    (EVENT, "spam_public_msg", "startcore(s, v)", "True"),
    (EVENT, "send_event", "proc_state(s) == P_WAITING or not vcore_will_look(s, 0)", "False"),
    (EVENT, "send_event", "not vcore_will_look(s, 0)", "False"),
    (EVENT, "unless_gone", "proc_state(s) == P_DYING", "False"),
    (EVENT, "wake_if_private", "not vcore_will_look(s, vcoreid)", "False"),
    (EVENT, "post_vcore_event", "vcore_will_look(s, vcoreid)", "True"),
    (PROC, "now_running", "ld32(s.mem, s.procinfo + PI_WATCH) != 0", "False"),
    (PROC, "proc_wait", "list_first(s, VC_ONLINE, 0) == NO_VCORE", "True"),
    (UCQ, "next_page", "after >> 32 != gen", "False"),
    (UCQ, "claim_slot", "w & 15 != PAGE_FREE", "True"),
    (UCQ, "is_full", "count_open(s, mbox, 0, limit) >= limit", "True"),
    (PAGES, "name_is_dead", "w & SLOT_GEN_MASK != name >> 12", "False"),
    (PAGES, "has_left", "after >> 32 != here >> 32", "False"),
    (PAGES, "leave_page", "all_done(s, page, 0, gen) < s.page_slots", "False"),
    (PAGES, "unlink_pages", "has_left(s, here, after)", "False"),
    (PAGES, "unlink_pages", "is_linked(s, page, after >> 32, mbox)", "True"),
    (PAGES, "unlink_pages", "link & LINK_LEAVING != 0", "False"),
    (PAGES, "sweep_mbox", "has_left(s, here, after)", "False"),
    (PAGES, "reachable", "has_left(s, here, after)", "False"),
    (PAGES, "scavenge_page", "reachable(s, w >> 32, page, gen)", "False"),
    (PAGES, "scavenge_page", "reachable(s, mbox, page, gen)", "False"),
    (UCQ, "advance_head", "link == after", "False"),
    (ARENA, "take_block", "ld64(s.mem, span_at(s, span) + SP_WORD) == w", "True"),
    (ARENA, "uncarve", "ld64(s.mem, block_record(s, span, i) + BK_WORD) & 15 != BLOCK_FREE", "False"),
    (ARENA, "scavenge_small", "slot_holds(s, ld64(s.mem, at + BK_SLOT), reference(span, i))", "False"),
    (ARENA, "scavenge_span", "slot_holds(s, ld64(s.mem, at + SP_SLOT), reference(span, BLOCK_LARGE))", "False"),
    (MBOX, "turn_page", "after >> 32 != cur.gen", "False"),
    (MBOX, "has_ready", "has_left(s, here, after)", "False"),
    (MBOX, "take", "ld64(s.mem, mbox_at(s, cur.mbox) + MB_RESCAN) != cur.rescan", "False"),
    (MBOX, "take", "cur.nskipped != 0", "False"),
    (MBOX, "take_like", "skipped_ready(s, cur)", "False"),
    (MBOX, "news", "ld64(s.mem, mbox_at(s, cur.mbox) + MB_RESCAN) != cur.rescan", "False"),
    (RECOVER, "mail_waits", "has_left(s, here, after)", "False"),
    (VCORE, "poll_queue", "alert & 15 == ALERT_POLLED", "False"),
    (VCORE, "look_everywhere", "is_told(s, queue)", "False"),
    (PASSING, "pass_on", "startcore(s, v)", "True"),
    (WATCH, "watch_sleeps", "anything_to_watch(s)", "False"),
]
"""(file, function, expression, what is believed instead of looking)."""

MOVED: list[tuple[str, str, str, str, str]] = [
    (EVENT, "set_bit", "xchg32(", "before", "for64("),
    (EVENT, "post_vc_msg", "str32(", "before", "status = post_ev_msg("),
    (EVENT, "send_indir", "marked = cas64(", "behind", "spam_public_msg("),
    (EVENT, "send_event", "wake_if_private(", "before", "status = post_vc_msg("),
    (PROC, "proc_notify", "str32(", "behind", "if ld32("),
    (PROC, "tell_holders", "cas32(", "before", "while v < n"),
    (PROC, "unhost_vcore", "old = ld64(", "before", "w = lda64("),
    (UCQ, "claim_slot", "st64(s.mem, at + MB_TAIL, place(page, i + 1, gen))", "before", "if cas64("),
    (UCQ, "send_ucq_msg", "xchg64(", "before", "fill_slot("),
    (UCQ, "send_ucq_msg", "name_block(", "behind", "xchg64("),
    (UCQ, "send_ucq_some", "str64(", "before", "fill_slot("),
    (PAGES, "leave_page", "if all_done(", "before", "link = lda64("),
    (UCQ, "advance_head", "retire_page(", "before", "if cas64(s.mem, at + MB_HEAD, head, after)"),
    (PAGES, "unlink_pages", "retire_page(", "before", "faa64("),
    (PAGES, "take_from_word", "fand64(", "behind", "if claim_page("),
    (ARENA, "alloc_large", "st64(s.mem, at + SP_COUNT, n)", "behind", "st64(s.mem, at + SP_WORD,"),
    (ARENA, "alloc_large", "st64(s.mem, body + SP_HEAD, first)", "behind", "st64(s.mem, body + SP_WORD,"),
    (ARENA, "free_large", "free_span(s, span, w)", "before", "while n > 1"),
    (SOURCE, "set_source", "faa32(", "before", "xchg64("),
    (SOURCE, "drop_source", "faa32(", "before", "if cas64("),
    (SOURCE, "end_firing", "if after != SOURCE_SET", "before", "done = cas64("),
    (SOURCE, "end_firing", "add_count(", "behind", "done = cas64("),
    (MBOX, "put_back", "faa64(", "before", "if not cas64("),
    (RECOVER, "restore_bit", "cas64(", "before", "if mbox != 0"),
    (RECOVER, "host_vcore", "if recover_vcore(", "behind", "if not cas64("),
    (RECOVER, "announce", "st64(", "behind", "send_indir("),
    (VCORE, "handle_bits", "st32(s.mem, at + MB_CHECK_BITS, 0)", "behind", "while i < MB_BITMAP_WORDS"),
    (VCORE, "take_bit", "st64(s.mem, held, bit_in_hand", "behind", "taken = fand64("),
    (VCORE, "handle_own", "put_done(", "before", "if ev_type == EV_EVENT"),
    (VCORE, "handle_events", "st32(", "behind", "found = handle_mbox("),
    (ENDING, "end_process", "set_proc_state(", "behind", "if something_waits("),
    (DEAD, "settle_message", "str64(", "behind", "if held != 0:\n    free_block("),
]
"""(file, function, statement, "before" or "behind", another statement): moved there."""

LOADS: list[tuple[str, str, str]] = [
    (UCQ, "first_page", "lda64(s.mem, at + MB_HEAD)"),
    (UCQ, "next_page", "lda64(s.mem, at + PG_NEXT)"),
    (PAGES, "all_done", "lda64(s.mem, slots + i * SLOT_SIZE)"),
    (UCQ, "send_ucq_msg", "xchg64(s.mem, at + SL_WORD, word(READY, where >> 32, s.me))"),
    (EVENT, "set_bit", "xchg32(s.mem, at + MB_CHECK_BITS, 1)"),
    (PAGES, "name_is_dead", "lda64(s.mem, slot_record_at(s, slot) + AS_WORD)"),
    (ARENA, "free_large", "lda64(s.mem, body + SP_WORD)"),
    (ARENA, "scavenge_span", "lda64(s.mem, at + SP_WORD)"),
    (SOURCE, "set_source", "xchg64(s.mem, at, word(SOURCE_SET, gen, 0))"),
    (SOURCE, "source_changes", "lda32(s.mem, s.procinfo + PI_SOURCES)"),
    (SOURCE, "next_source", "lda64(s.mem, source_at(s, i) + SR_WORD)"),
    (MBOX, "restart", "lda64(s.mem, at + MB_HEAD)"),
    (MBOX, "turn_page", "lda64(s.mem, at + PG_NEXT)"),
    (MBOX, "take", "lda64(s.mem, at + SL_WORD)"),
    (MBOX, "take_skipped", "lda64(s.mem, slot_at(s, where) + SL_WORD)"),
]
"""(file, function, access): an acquire becomes relaxed, an exchange a plain store."""

STEPS: list[tuple[str, str, str]] = [
    (EVENT, "wake_if_private", "if not flags & EVENT_VCORE_PRIVATE"),
    (PROC, "proc_yield", "if ld32(s.mem, vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING) != 0:\n    if cas64("),
    (MBOX, "recover_mbox", "if again"),
    (MBOX, "recover_mbox", "if has_bits("),
    (MBOX, "put_done", "if cur.limited != 0 and"),
    (VCORE, "handle_bit", "if vc.full"),
    (VCORE, "vcore_yield", "if news("),
    (VCORE, "vcore_yield", "if ld32(s.mem, s.procinfo + PI_POOL_WAITERS)"),
    (VCORE, "vcore_entry", "look_everywhere("),
    (VCORE, "vcore_entry", "adopt_mail("),
    (VCORE, "leave_vcore_context", "if cur is not None and"),
    (VCORE, "enable_notifs", "if ld32("),
    (VCORE, "handle_queue", "stop_polling("),
    (ENDING, "nudge", "faa32("),
]
"""(file, function, statement): left out."""

FULL = "redundant: the read-modify-write beside it is a full fence, in each model here and on every CPU"
EITHER = "one of two or three that order the same: a release store, a fence beside it, the exchange to READY before"
ACQUIRED = "an acquiring load and a read fence in a row: either would do, and neither costs anything on x86"
LATE = (
    "only hardware can show it: a load that is delayed behind a later store (load buffering), which no model here does "
    "(litmus.md)"
)
OPEN = "open: no scenario comes to a run that fails without it, within three switches and the time given"

WHY: dict[str, str] = {
    (
        "kern/arena.py:alloc_large: st64(s.mem, at + SP_COUNT, n) behind st64(s.mem, at + SP_WORD, "
        "word(SPAN_LARGE, gen,..."
    ): (
        "a scavenger looks at each body's own word and head, so a count of an earlier block frees nothing of another's"
    ),
    "kern/arena.py:alloc_large: wmb()": (
        "whoever frees another's block has learnt of its owner's death from the kernel, behind all its "
        "stores, and who is given a reference has it through READY: what is left is a reference that "
        "nobody gave, in a hostile slot"
    ),
    "kern/arena.py:alloc_large: wmb() (no. 2)": (
        "whoever frees another's block has learnt of its owner's death from the kernel, behind all its "
        "stores, and who is given a reference has it through READY: what is left is a reference that "
        "nobody gave, in a hostile slot"
    ),
    "kern/arena.py:free_large: lda64(s.mem, body + SP_WORD)": (
        "the other side is dead, or the caller itself (see `alloc_large`)"
    ),
    "kern/arena.py:return_block: w >> 32 != s.me": (
        "for references that nobody gave, in hostile slots (`test_hostile.py`)"
    ),
    "kern/arena.py:scavenge_span: lda64(s.mem, at + SP_WORD)": ("the other side is dead, behind all its stores"),
    "kern/arena.py:scavenge_span: name_is_dead(s, w >> 32)": (
        "who looks then fails in its compare-and-swap, and the span stays carved: work for nothing, nothing worse"
    ),
    "kern/arena.py:scavenge_span: name_is_dead(s, w >> 32) (no. 4)": (
        "bodies have a LARGE head from before they are bodies until after, which is asked next"
    ),
    "kern/event.py:post_vc_msg: wmb()": EITHER,
    "kern/event.py:post_vc_msg: str32(s.mem, vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING, 1)": EITHER,
    "kern/pages.py:name_is_dead: name == s.me": ("saves a system call: the kernel would say that the caller lives"),
    "kern/pages.py:name_is_dead: lda64(s.mem, slot_record_at(s, slot) + AS_WORD)": (
        "who reads an older generation asks the kernel; who reads a later one takes back by compare-and-swap, which reads "
        "the newest, from an owner that is dead, behind all its stores"
    ),
    "kern/pages.py:take_from_word: fand64(s.mem, at, ~(u64(1) << bit)) behind if claim_page(s, page)": (
        "either order is right; this one costs no later claimer a failed compare-and-swap"
    ),
    "kern/pages.py:all_done: lda64(s.mem, slots + i * SLOT_SIZE)": LATE,
    "kern/pages.py:has_left: rmb()": ACQUIRED,
    "kern/proc.py:proc_wait: rmb()": ACQUIRED,
    "kern/proc.py:unhost_vcore: rmb()": ACQUIRED,
    "kern/proc.py:proc_lock: owner == s.me": ("for an owner that asks again"),
    "kern/proc.py:proc_unlock: low32(w) == s.me": ("a lock is taken only from the dead: for callers that never had it"),
    "kern/ucq.py:count_open: rmb() (no. 2)": ACQUIRED,
    "kern/ucq.py:advance_head: rmb()": ACQUIRED,
    "parlib/dead.py:settle_message: str64(s.mem, at + SL_WORD, word(DONE, where >> 32, 0))": LATE,
    "parlib/mbox.py:turn_page: lda64(s.mem, at + PG_NEXT)": ACQUIRED,
    "parlib/mbox.py:turn_page: rmb()": ACQUIRED,
    "parlib/mbox.py:take_skipped: lda64(s.mem, slot_at(s, where) + SL_WORD)": (
        "the compare-and-swap that takes the slot is a full fence before its contents are read"
    ),
    "parlib/mbox.py:put_done: str64(s.mem, at + SL_WORD, word(DONE, where >> 32, 0))": LATE,
    "parlib/mbox.py:recover_mbox: rmb()": ACQUIRED,
    "parlib/mbox.py:mbox_end: rmb()": ACQUIRED,
    "parlib/poll.py:now_full: mb()": FULL,
    "parlib/poll.py:no_longer_full: ld64(s.mem, vcpd + VCPD_HOST) == s.me": (
        "for a host that has left, whose vcore may be another's (`test_poll.py`)"
    ),
    "parlib/recover.py:take_back: name_is_dead(s, alert >> 32)": (
        "a living vcore's answer that is taken back costs one more indirection"
    ),
    "parlib/recover.py:host_vcore: rmb()": ACQUIRED,
    "parlib/recover.py:preempt_vcore: str32(s.mem, vcpd + VCPD_NOTIF_PENDING, 1)": EITHER,
    ("parlib/recover.py:announce: st64(s.mem, evq_at(s, queue) + EVQ_ALERT, ALERT... behind send_indir(s, queue, 0)"): (
        "a flag that says DONE there has its indirection in a mailbox still, and that is announced, too"
    ),
    "parlib/recover.py:announce: str32(s.mem, vcpd_at(s, v) + VCPD_NOTIF_PENDING, 1)": EITHER,
    "parlib/vcore.py:handle_own: put_done(s, cur, cur.taken) before if ev_type == EV_EVENT": (
        "whoever settles the death announces every queue in which something waits, too; the order does without"
    ),
    "parlib/vcore.py:poll_queue: alert & 15 == ALERT_POLLED": (
        "two vcores that answer for one queue in turns: no harm but the writes"
    ),
    "parlib/vcore.py:handle_queue: stop_polling(vc, queue)": (
        "for a queue whose mailbox is gone from a hostile segment"
    ),
    "parlib/vcore.py:vcore_yield: mb()": (
        "for the queues one more behind their compare-and-swaps; a vcore without queues has only this one before its look "
        "at PI_POOL_WAITERS"
    ),
    "parlib/vcore.py:vcore_entry: str32(s.mem, vcpd + VCPD_NOTIF_PENDING, 1)": EITHER,
    "parlib/watch.py:watch_sleeps: str32(s.mem, at, 1)": EITHER,
    "parlib/watch.py:watch_sleeps: str32(s.mem, at, 0)": (
        "says nothing that anybody relies on: until it is seen, a wake costs one more system call"
    ),
    "parlib/watch.py:watch_wakes: str32(s.mem, s.procinfo + PI_WATCH, 0)": (
        "says nothing that anybody relies on: until it is seen, a wake costs one more system call"
    ),
    "kern/proc.py:proc_notify: str32(s.mem, vcpd + VCPD_NOTIF_PENDING, 1)": EITHER,
    "parlib/vcore.py:enable_notifs: str32(s.mem, vcpd_at(s, vc.vcoreid) + VCPD_NOTIF_DISABLED, 0)": EITHER,
}
"""For places that no scenario shows to be needed: why they stay, by `Site.name`. What begins with "open:" is no reason, but
work to do."""
