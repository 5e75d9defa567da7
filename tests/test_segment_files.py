"""Segments as files: where they are, who may read them, files that are no segment, a full file system, hostile bytes."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import upcall
from procs import LONG_S, abandon, discard, log_to, output, program, running, until, vcore_info
from upcall import Proc, SegmentError
from upcall.front import port
from upcall.host.segment import Geometry, Segment, create, folder, make_fifos, open_segment, remove
from upcall.host.wire import STANDBY_SOCKET, listen
from upcall.kern import const
from upcall.kern.arena import reference
from upcall.kern.event import queue_mbox
from upcall.kern.layout import mbox_at, page_at, place, span_at
from upcall.kern.ucq import slot_at

MEMORY = "4 MiB"


def made(name: str = "box") -> Path:
    """The file of a process that has run and that nobody attends; nothing waits in it."""
    proc = Proc(name, vcores=2, memory=MEMORY)
    proc.queue("orders", on_full="raise")
    proc.queue("bits", flags=upcall.EventFlag.NOMSG | upcall.EventFlag.INDIR | upcall.EventFlag.FALLBACK)
    proc.queue("spam", flags=upcall.EventFlag.SPAM_PUBLIC)
    proc.on("order")(print)
    abandon(proc)
    return folder() / name / "segment"


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An UPCALL_DIR of this test's own, not made yet."""
    path = tmp_path / "segments"
    monkeypatch.setenv("UPCALL_DIR", str(path))
    return path


# The folder


def test_the_folder_is_made_for_its_user_alone(own_folder: Path) -> None:
    assert folder() == own_folder
    assert stat.S_IMODE(own_folder.stat().st_mode) == 0o700


def test_the_folder_is_made_with_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPCALL_DIR", str(tmp_path / "a" / "b" / "c"))
    assert stat.S_IMODE(folder().stat().st_mode) == 0o700


def test_the_folder_that_is_there_keeps_its_mode(own_folder: Path) -> None:
    own_folder.mkdir(mode=0o750)
    assert folder() == own_folder
    assert stat.S_IMODE(own_folder.stat().st_mode) == 0o750


@pytest.mark.parametrize("given", [None, ""])
def test_without_upcall_dir_it_is_the_users_own_on_shared_memory(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(f"/dev/shm/upcall-{os.getuid()}")
    was_there = path.exists()
    if given is None:
        monkeypatch.delenv("UPCALL_DIR")
    else:
        monkeypatch.setenv("UPCALL_DIR", given)
    assert folder() == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    if not was_there:
        path.rmdir()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_refused(mode: int, own_folder: Path) -> None:
    own_folder.mkdir()
    own_folder.chmod(mode)
    with pytest.raises(SegmentError, match=f"folder of segments {own_folder} can be written by others"):
        upcall.connect("box")
    with pytest.raises(SegmentError, match="can be written by others: chmod go-w it, or set UPCALL_DIR"):
        Proc("box", vcores=1).start()
    assert list(own_folder.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(own_folder: Path) -> None:
    own_folder.touch()
    with pytest.raises(SegmentError, match="is not a folder: set UPCALL_DIR to one of your own"):
        upcall.connect("box")


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UPCALL_DIR", str(tmp_path / "file" / "sub"))
    with pytest.raises(SegmentError, match=f"folder of segments {tmp_path}/file/sub"):
        upcall.connect("box")


def test_processes_in_different_folders_do_not_meet(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Proc("box", vcores=1)):
        monkeypatch.setenv("UPCALL_DIR", str(tmp_path / "other"))
        with pytest.raises(upcall.NoSuchProcess):
            upcall.connect("box")
        with running(Proc("box", vcores=1)):
            assert (tmp_path / "other" / "box").is_dir()
        monkeypatch.setenv("UPCALL_DIR", str(own_folder))


# Modes and names


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_everything_belongs_to_its_user_alone(mask: int) -> None:
    before = os.umask(mask)
    try:
        with running(Proc("box", vcores=2)):
            path = folder() / "box"
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            kinds = {entry.name: entry.stat().st_mode for entry in path.iterdir()}
            assert {stat.S_IMODE(mode) for mode in kinds.values()} == {0o600}
            assert stat.S_ISREG(kinds.pop("segment"))
            assert stat.S_ISSOCK(kinds.pop("ctl"))
            assert stat.S_ISSOCK(kinds.pop("sources"))
            assert all(stat.S_ISFIFO(mode) for mode in kinds.values())
    finally:
        os.umask(before)


def test_the_file_is_sparse() -> None:
    with running(Proc("box", vcores=2, memory="1 GiB")):
        found = (folder() / "box" / "segment").stat()
        assert found.st_size > 1 << 30
        assert found.st_blocks * 512 < 64 << 20


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../box", ".box", "-box", "b" * 64, "b\0x", "b x", "bøx"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    for use in (upcall.connect, Proc, open_segment, lambda name: create(name, Geometry.for_memory(1, 1 << 22))):
        with pytest.raises(ValueError, match="process name"):
            use(name)


def test_the_segment_may_not_be_a_link(tmp_path: Path) -> None:
    path = made()
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegmentError, match="segment of 'box'"):
        upcall.connect("box")
    with pytest.raises(SegmentError, match="segment of 'box'"):
        Proc("box", vcores=1).start()
    discard("box")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo], ids=["folder", "fifo"])
def test_the_segment_must_be_a_file(make: Callable[[Path], object]) -> None:
    (folder() / "box").mkdir()
    make(folder() / "box" / "segment")
    with pytest.raises(SegmentError, match="segment of 'box'"):
        upcall.connect("box")
    discard("box")


def test_a_name_without_permission_is_an_error_that_says_so(lacks: Callable[[str], NoReturn], tmp_path: Path) -> None:
    if os.getuid() != 0:
        lacks("root, to become somebody else")
    path = made()
    path.parent.chmod(0o755)
    folder().chmod(0o755)
    source = """
        import os, sys
        import upcall
        os.setuid(65534)
        try:
            upcall.connect("box")
        except upcall.SegmentError as error:
            print(error)
    """
    with program(tmp_path, source) as process:
        said = output(process)
    folder().chmod(0o700)
    assert "Permission denied" in said or "can be written by others" in said
    discard("box")


# Files that are no segment


def refused(path: Path, content: bytes, *says: str) -> None:
    """Every way in refuses a file of this content, saying why, and writes nothing."""
    path.write_bytes(content)
    for use in (upcall.connect, lambda name: Proc(name, vcores=1).start()):
        with pytest.raises(SegmentError) as caught:
            use("box")
        for text in ("segment of 'box'", *says):
            assert text in str(caught.value)
        assert path.read_bytes() == content


class Whole:
    """A segment's file, and what is in it."""

    def __init__(self) -> None:
        self.path = made()
        self.content = self.path.read_bytes()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.path, self.content))

    def write(self, at: int, data: bytes) -> bytes:
        """Writes these bytes into the good header; returns the header."""
        header = self.content[:at] + data + self.content[at + len(data) : 4096]
        with open(self.path, "r+b") as file:
            file.write(header)
        return header

    def refused(self, header: bytes) -> str:
        """What a sender is told. Nothing is written."""
        with pytest.raises(SegmentError) as caught:
            upcall.connect("box")
        assert self.path.read_bytes() == header + self.content[4096:]
        assert "segment of 'box'" in str(caught.value)
        return str(caught.value)


@pytest.fixture
def whole() -> Iterator[Whole]:
    yield Whole()
    discard("box")


@pytest.mark.parametrize("size", [0, 1, 8, 4095])
def test_a_file_shorter_than_a_header_is_refused(size: int, whole: Whole) -> None:
    path, content = whole
    refused(path, content[:size], f"is too short: {size} bytes, a header has 4096")


@pytest.mark.parametrize("cut", [1, 4096, 1 << 20])
def test_a_file_shorter_than_its_header_says_is_refused(cut: int, whole: Whole) -> None:
    path, content = whole
    size = len(content)
    refused(path, content[: size - cut], f"is too short: {size - cut} bytes, its header says {size}")


@pytest.mark.parametrize("start", [b"\x7fELF\x02\x01\x01\x00", b"\0" * 8, b"UPCALL\n\n", b"upcall\r\n"])
def test_a_file_that_is_not_ours_is_refused(start: bytes, whole: Whole) -> None:
    path, content = whole
    refused(path, start + content[8:], f"is not an upcall segment: it starts with {start!r}")


@pytest.mark.parametrize("abi", [0, const.ABI - 1, const.ABI + 1, 1 << 31])
def test_a_segment_of_another_version_is_refused(abi: int, whole: Whole) -> None:
    path, content = whole
    refused(
        path, content[:8] + struct.pack("I", abi) + content[12:], f"has format {abi}, this upcall knows {const.ABI}"
    )


FIELDS = {
    "header": const.HDR_BYTES,
    "max_vcores": const.HDR_MAX_VCORES,
    "max_queues": const.HDR_MAX_QUEUES,
    "max_types": const.HDR_MAX_TYPES,
    "max_slots": const.HDR_MAX_SLOTS,
    "page_slots": const.HDR_PAGE_SLOTS,
    "nr_pages": const.HDR_NR_PAGES,
    "nr_spans": const.HDR_NR_SPANS,
}


FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(name=st.sampled_from(sorted(FIELDS)), value=st.integers(0, 2**32 - 1) | st.integers(0, 2000))
def test_every_number_of_the_header_is_checked(name: str, value: int, whole: Whole) -> None:
    data = struct.pack("I", value)
    header = whole.write(FIELDS[name], data)
    if header == whole.content[:4096]:
        return
    said = whole.refused(header)
    assert str(value) in said or str(len(whole.content)) in said


@pytest.mark.parametrize("name", sorted(FIELDS))
@pytest.mark.parametrize("by", [-1, 1])
def test_a_number_of_the_header_that_is_wrong_by_one_is_noticed(name: str, by: int, whole: Whole) -> None:
    good = struct.unpack_from("I", whole.content, FIELDS[name])[0]
    assert "segment of 'box'" in whole.refused(whole.write(FIELDS[name], struct.pack("I", good + by)))


@FUZZ
@given(size=st.integers(0, 2**64 - 1) | st.integers(0, 1 << 24))
def test_the_files_size_in_the_header_is_checked(size: int, whole: Whole) -> None:
    header = whole.write(const.HDR_FILE_SIZE, struct.pack("Q", size))
    if size != len(whole.content):
        assert str(size) in whole.refused(header)


@FUZZ
@given(start=st.binary(min_size=64, max_size=64), keep=st.sampled_from([0, 8, 12, 16, 24]))
def test_a_header_of_anything_is_refused(start: bytes, keep: int, whole: Whole) -> None:
    whole.refused(whole.write(keep, start[keep:]))


def test_a_longer_file_is_still_good(whole: Whole) -> None:
    path, content = whole
    path.write_bytes(content + bytes(4096))
    upcall.connect("box").close()


def test_a_segment_removed_under_a_sender_stays_good_for_it() -> None:
    path = made()
    with upcall.connect("box") as remote:
        path.unlink()
        remote.queue("orders").send("order")
    discard("box")


def test_ctrl_c_while_a_segment_is_opened_closes_no_file_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attachment is made, and has closed its files, when the error reaches whoever had opened the first."""
    gc.collect()
    path, before, real = made(), len(os.listdir("/proc/self/fd")), port.Attachment

    def interrupted(*args: object) -> None:
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(port, "Attachment", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_segment(path.parent.name)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    discard("box")


def test_creating_a_segment_that_is_there_changes_nothing() -> None:
    path = made()
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        create("box", Geometry.for_memory(1, 1 << 22))
    assert path.read_bytes() == before
    assert not [entry for entry in path.parent.iterdir() if entry.name.startswith("draft")]
    discard("box")


def test_drafts_of_starters_that_died_go_with_the_next_start() -> None:
    path = made()
    draft = path.parent / "draft-1-00000000"
    draft.write_bytes(bytes(4096))
    with running(Proc("box", vcores=1, memory=MEMORY)):
        assert not draft.exists()


def test_a_start_leaves_the_socket_alone_that_a_worker_just_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is about to watch could not do so afterwards, and never tried again."""
    segment = create("box", Geometry.for_memory(1, 1 << 22))
    real = os.rename

    def rename(*arguments: Any, **options: Any) -> None:
        make_fifos(segment)
        real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", rename)
        listener = listen(segment.path, STANDBY_SOCKET)
    assert (segment.path / STANDBY_SOCKET).is_socket()
    listener.close()
    segment.close()
    discard("box")


def test_a_created_segment_can_be_opened_and_removed() -> None:
    segment = create("box", Geometry.for_memory(3, 1 << 22))
    other = open_segment("box")
    assert other.geometry == segment.geometry
    assert not other.is_attended()
    other.close()
    remove(segment)
    segment.close()
    assert not (folder() / "box").exists()


# A full file system


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    """A file system of 4 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", str(path)]
    if os.getuid() != 0 or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        lacks("the right to mount a small file system")
    monkeypatch.setenv("UPCALL_DIR", str(path))
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


FILL = """
    import sys
    import upcall
    size, at_most = map(int, sys.argv[1:])
    with upcall.connect("box") as remote:
        orders = remote.queue("orders")
        for round in range(3):
            sent = 0
            try:
                while sent < at_most:
                    orders.send("order", bytes(size))
                    sent += 1
            except upcall.MailboxFull:
                pass
            print(sent)
"""


@pytest.mark.parametrize("size", [0, 80, 500, 5_000, 60_000, 300_000])
def test_a_full_file_system_is_a_full_mailbox_and_no_crash(size: int, small: Path, tmp_path: Path) -> None:
    def define() -> Proc:
        proc = Proc("box", vcores=1, memory="32 MiB")
        proc.queue("orders", on_full="raise")
        proc.on("order")(lambda ev: bytes(ev.payload))
        return proc

    abandon(define())
    with program(tmp_path, FILL, size, 1 << 40) as process:
        said = output(process).split()
        assert process.returncode == 0, said
    first, *rest = map(int, said)
    assert first > 0
    assert rest == [0, 0]
    with running(define()) as proc:
        assert proc.drain(LONG_S) == []
        # A receiver that keeps up is never full: there is an end to it.
        with program(tmp_path, FILL, size, 20_000) as process:
            assert output(process)
            assert process.returncode == 0
        assert proc.drain(LONG_S) == []


def test_a_file_system_filled_by_others_is_a_full_mailbox_until_there_is_room(small: Path, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1, memory="32 MiB")
    queue = proc.queue("orders", on_full="raise")
    proc.on("order")(lambda ev: bytes(ev.payload))
    with running(proc):
        with contextlib.suppress(OSError), open(small / "filler", "wb") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
        with pytest.raises(upcall.MailboxFull):
            queue.send("order", bytes(1 << 20))
        (small / "filler").unlink()
        queue.send("order", bytes(1 << 20))


ATTACH = """
    import faulthandler, sys
    import upcall
    from upcall.cli import main
    faulthandler.enable()
    if sys.argv[1] == "send":
        with upcall.connect("box") as remote:
            remote.queue("orders").send("order", b"x")
    elif sys.argv[1] == "start":
        proc = upcall.Proc("box", vcores=1, memory="32 MiB")
        proc.queue("orders")
        proc.start().stop("now")
    else:
        sys.exit(main(sys.argv[1:]))
"""


def test_a_sparse_file_in_a_segments_place_on_a_full_file_system_is_an_error_and_no_crash(
    small: Path, tmp_path: Path
) -> None:
    proc = Proc("box", vcores=1, memory="32 MiB")
    proc.queue("orders")
    proc.on("order")(print)
    abandon(proc)
    segment = small / "box" / "segment"
    with open(segment, "rb") as whole, open(segment.with_name("copy"), "wb") as copy:
        for block in iter(lambda: whole.read(4096), b""):
            copy.seek(len(block), os.SEEK_CUR) if not any(block) else copy.write(block)
        copy.truncate(segment.stat().st_size)
    segment.with_name("copy").rename(segment)
    with contextlib.suppress(OSError), open(small / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    says = "has holes in its tables, as no segment is made, and the file system is full: free some room"
    for what in (["send"], ["start"], ["ps", "box"], ["dump", "box"], ["stop", "box"], ["clean"]):
        with program(tmp_path, ATTACH, *what) as process:
            assert says in output(process)
            assert process.returncode == (what != ["clean"])
    (small / "filler").unlink()
    for what in (["send"], ["ps", "box"], ["stop", "box"]):
        with program(tmp_path, ATTACH, *what) as process:
            assert says not in output(process)
            assert process.returncode == 0
    with running(proc):
        pass


TRY = """
    import faulthandler
    import upcall
    faulthandler.enable()
    errors = set()
    with upcall.connect("box") as remote:
        orders, vcore = remote.queue("orders"), remote.vcore(0)
        for i in range(600):
            payload = bytes((0, 80, 300, 5000, 70000, 300000)[i % 6])
            for send in (
                lambda: orders.send("order", payload),
                lambda: orders.send_many("order", [payload] * 3),
                lambda: vcore.send("order", payload, private=bool(i % 2)),
            ):
                try:
                    send()
                except upcall.UpcallError as error:
                    errors.add(type(error).__name__)
    print("done", *sorted(errors))
"""


SHOW = """
    import faulthandler, sys
    from upcall.cli import main
    faulthandler.enable()
    sys.exit(main([sys.argv[1], "box"]))
"""


def lie_real(segment: Segment, hole: int) -> None:
    """All of the pool and of the arena is said to be real."""
    segment.put_u64(segment.seg.procinfo + const.PI_PAGES_REAL, segment.seg.nr_pages)
    segment.put_u64(segment.seg.procinfo + const.PI_SPANS_REAL, segment.seg.nr_spans)


def lie_bitmap(segment: Segment, hole: int) -> None:
    """Every page is said to be free, the ones in holes first."""
    for word in range((segment.seg.nr_pages + 63) // 64):
        segment.put_u64(segment.seg.bitmap + 8 * word, 2**64 - 1 if word else 2**64 - 2**32)


def lie_spans(segment: Segment, hole: int) -> None:
    """Every span is said to hold small blocks, of one class or another; those in holes gave one back last."""
    for span in range(segment.seg.nr_spans):
        segment.put_u64(span_at(segment.seg, span), const.SPAN_SMALL | span % const.SMALL_CLASSES << 4 | 1 << 8)
    for c in range(const.SMALL_CLASSES):
        segment.put_u64(segment.seg.procinfo + const.PI_SPANS_FREED + 8 * c, 200 + c)


def lie_block(segment: Segment, hole: int) -> None:
    """The next messages of the queue have their payloads in holes."""
    seg = segment.seg
    segment.put_u64(span_at(seg, 100), const.SPAN_SMALL | 1 << 8)
    segment.put_u64(span_at(seg, 100) + const.SP_BLOCKS, const.BLOCK_HELD)
    segment.put_u64(span_at(seg, 101), const.SPAN_LARGE | 1 << 8)
    segment.put_u64(span_at(seg, 101) + const.SP_COUNT, 2)
    tail = segment.u64(mbox_at(seg, queue_mbox(seg, 0)) + const.MB_TAIL)
    for n, ref in enumerate((reference(100, 0), reference(101, const.BLOCK_LARGE))):
        at = slot_at(seg, tail) + n * const.SLOT_SIZE
        segment.put_u32(at + const.SL_LEN, 500)
        segment.put_u64(at + const.SL_BLOCK, ref)
        segment.put_u64(at, const.READY | tail >> 32 << 8)


def lie_head(segment: Segment, hole: int) -> None:
    """Every mailbox begins in a hole."""
    for mbox in range(segment.seg.nr_mboxes):
        segment.put_u64(mbox_at(segment.seg, mbox) + const.MB_HEAD, hole)


def lie_tail(segment: Segment, hole: int) -> None:
    """Every mailbox ends in a hole."""
    for mbox in range(segment.seg.nr_mboxes):
        segment.put_u64(mbox_at(segment.seg, mbox) + const.MB_TAIL, hole)


def lie_link(segment: Segment, hole: int) -> None:
    """Every page leads on into a hole."""
    for mbox in range(segment.seg.nr_mboxes):
        if page := segment.u64(mbox_at(segment.seg, mbox) + const.MB_HEAD) & const.PAGE_MASK:
            segment.put_u64(page_at(segment.seg, page) + const.PG_NEXT, hole)


LIES = (lie_real, lie_bitmap, lie_spans, lie_block, lie_head, lie_tail, lie_link)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_no_number_leads_anybody_into_a_hole_of_a_full_file_system(
    lie: Callable[[Segment, int], None], small: Path, tmp_path: Path
) -> None:
    """It is a worker's death, a sender's, or the supervisor's, by SIGBUS. A worker is killed meanwhile, for the sake of
    those who settle its death and of the one that comes after it."""
    proc = Proc("box", vcores=1, memory="32 MiB")
    queue = proc.queue("orders", on_full="raise")
    proc.on("order")(lambda ev: bytes(ev.payload))
    proc.main(lambda: faulthandler.enable(faults))
    with open(tmp_path / "faults", "w") as faults, log_to(tmp_path / "log") as log, running(proc, stop="now"):
        queue.send("order", bytes(300))
        assert proc.drain(LONG_S) == []
        with contextlib.suppress(OSError), open(small / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        segment = open_segment("box")
        lie_real(segment, 0)
        lie(segment, place(500, 0, 0))
        for command in ("ps", "dump"):
            with program(tmp_path, SHOW, command) as process:
                assert "SIGBUS" not in (said := output(process))
                assert process.returncode in (0, 1), said
        worker = vcore_info("box")[0].pid
        with program(tmp_path, TRY) as process:
            said = output(process)
        assert process.returncode == 0, said
        assert said.startswith("done")
        assert vcore_info("box")[0].pid == worker
        os.kill(worker, signal.SIGKILL)
        until(lambda: vcore_info("box")[0].pid not in (None, worker), "the next worker")
        with program(tmp_path, TRY) as process:
            said = output(process)
        assert process.returncode == 0, said
        segment.close()
    assert (tmp_path / "faults").read_text() == ""
    assert "SIGBUS" not in log.read_text()


def test_a_start_on_a_file_system_that_is_too_small_says_so_and_leaves_nothing(small: Path) -> None:
    with pytest.raises(SegmentError, match=f"no room for the segment of 'box' in {small}"):
        Proc("box", vcores=1, memory="1 GiB").start()
    assert list(small.iterdir()) == []


# Hostile bytes

SENDER = """
    import faulthandler, sys
    import upcall
    faulthandler.enable()
    with upcall.connect("box") as remote:
        queues = [remote.queue(name) for name in ("orders", "bits", "spam")]
        vcores = [remote.vcore(v) for v in (0, 1)]
        for queue in queues:
            queue.send("order")
        print("ready", flush=True)
        errors = set()
        for i in range(1500):
            payload = bytes((0, 80, 300, 5000, 70000)[i % 5])
            for send in (
                lambda: queues[0].send("order", payload, arg1=1),
                lambda: queues[0].send_many("order", [payload] * 3),
                lambda: queues[1].send("order"),
                lambda: queues[2].send("order", payload[:80]),
                lambda: vcores[i % 2].send("order", payload, private=bool(i % 3)),
                lambda: remote.signal(1),
            ):
                try:
                    send()
                except upcall.UpcallError as error:
                    errors.add(type(error).__name__)
        print("done", *sorted(errors))
"""
REGIONS = {
    "procinfo": lambda seg: (seg.procinfo, const.PROCINFO_SIZE),
    "vcoremap": lambda seg: (seg.vcoremap, seg.max_vcores * 8),
    "vcpds": lambda seg: (seg.vcpds, seg.max_vcores * const.VCPD_STRIDE),
    "queues": lambda seg: (seg.queues, 3 * const.EVQ_STRIDE),
    "mailboxes": lambda seg: (seg.mboxes, seg.nr_mboxes * const.MBOX_STRIDE),
    "types": lambda seg: (seg.types, seg.max_types * const.NAME_BYTES),
    "sources": lambda seg: (seg.sources, const.NR_SOURCES * const.SOURCE_STRIDE),
    "bitmap": lambda seg: (seg.bitmap, (seg.nr_pages + 63) // 64 * 8),
    "spans": lambda seg: (seg.spans, seg.nr_spans * const.SPAN_STRIDE),
    "pages": lambda seg: (seg.pages, 8 * seg.page_size),
    "slots": lambda seg: (seg.slots, 16 * const.SLOT_STRIDE),
}


def hostile_word(rng: random.Random) -> bytes:
    """Eight bytes that somebody could have thought of: small, huge, a plausible word with other owners, or anything."""
    value = rng.choice(
        [
            rng.randrange(16),
            (1 << 64) - 1 - rng.randrange(16),
            rng.getrandbits(64),
            rng.randrange(8) | rng.randrange(4) << 8 | rng.getrandbits(32) << 32,
            rng.randrange(1, 70) | rng.randrange(300) << 20 | rng.randrange(3) << 32,
        ]
    )
    return struct.pack("Q", value)


@pytest.mark.parametrize("region", sorted(REGIONS))
@pytest.mark.parametrize("seed", [1, 2])
def test_no_bytes_in_the_segment_crash_or_hang_a_sender(region: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{region} {seed}")
    path = made()
    segment = open_segment("box")
    start, size = REGIONS[region](segment.seg)
    with program(tmp_path, SENDER) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with open(path, "r+b", buffering=0) as file:
            while process.poll() is None:
                os.pwrite(file.fileno(), hostile_word(rng), start + rng.randrange(size // 8) * 8)
                if rng.randrange(3000) == 0 and seed == 2:
                    os.pwrite(file.fileno(), rng.randbytes(size), start)
        said = output(process)
        assert process.returncode == 0, said
        assert said.startswith("done")
    segment.close()
    discard("box")


HEIR = """
    import faulthandler, logging, sys
    import upcall

    faulthandler.enable()
    logging.getLogger("upcall").addHandler(logging.NullHandler())
    proc = upcall.Proc("box", vcores=2, memory="4 MiB", host="thread")
    orders = proc.queue("orders", on_full="raise")
    proc.queue("bits", flags=upcall.EventFlag.NOMSG | upcall.EventFlag.INDIR | upcall.EventFlag.FALLBACK)
    proc.queue("spam", flags=upcall.EventFlag.SPAM_PUBLIC)

    @proc.on("order")
    def order(ev):
        (bytes(ev.payload), repr(ev))

    try:
        proc.start()
    except upcall.UpcallError as error:
        sys.exit(print("refused", type(error).__name__))
    for i in range(200):
        try:
            orders.send("order", bytes(7 * i))
        except upcall.UpcallError:
            pass
    try:
        proc.drain(0.1)
    except TimeoutError:
        pass
    proc.stop("now", timeout=10)
    print("ran")
"""


@pytest.mark.parametrize("region", sorted(REGIONS))
@pytest.mark.parametrize("writes", [1, 20, 1000])
def test_no_bytes_that_were_left_crash_or_hang_the_next_start(region: str, writes: int, tmp_path: Path) -> None:
    """The vcores are threads of the program, so that a crash of one is its end."""
    rng = random.Random(f"{region} {writes}")
    path = made()
    with upcall.connect("box") as remote:
        start, size = REGIONS[region](remote.handle().segment.seg)
        for i in range(30):
            remote.queue("orders").send("order", bytes(50 * i))
            remote.queue("bits").send("order")
            remote.queue("spam").send("order")
            remote.vcore(i % 2).send("order", bytes(9 * i), private=bool(i % 3))
    with open(path, "r+b", buffering=0) as file:
        for _ in range(writes):
            os.pwrite(file.fileno(), hostile_word(rng), start + rng.randrange(size // 8) * 8)
    with program(tmp_path, HEIR) as process:
        said = output(process)
        assert process.returncode == 0, said
    assert said.split()[0] in ("ran", "refused")
    discard("box")


@pytest.mark.parametrize("width", [4, 8])
def test_a_word_that_is_not_wholly_inside_or_not_aligned_is_refused(width: int) -> None:
    with contextlib.closing(create("box", Geometry(2, nr_pages=6, nr_spans=2))) as made:
        try:
            get, put = (made.u32, made.put_u32) if width == 4 else (made.u64, made.put_u64)
            last = made.seg.size - width
            put(last, (1 << 8 * width) - 1)
            assert get(last) == (1 << 8 * width) - 1
            for at in (last + 1, last + width, 1 << 63, 2, width // 2):
                with pytest.raises(IndexError):
                    get(at)
                with pytest.raises(IndexError):
                    put(at, 0)
            with pytest.raises(OverflowError):
                get(-width)
        finally:
            remove(made)
