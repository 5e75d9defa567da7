"""Segments as files: where they live, how one is made, found, checked and removed.

A process `ingest` is a folder `UPCALL_DIR/ingest` with the file `segment`, sparse, a FIFO per vcore, and one for the
watcher. The folder is 0700 and the file 0600: permission on them is permission to send. A segment appears whole: it is
written under another name and linked, so that whoever opens `segment` finds a complete header, and an owner that makes it
has the supervisor's slot before it appears.

Trust: nothing in the file is believed but what this module has checked. The header states a geometry; the geometry must
be within limits, give exactly the file size that the header states, and the file must be that long. All offsets follow
from the geometry (kern/layout).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import NoSuchProcess, SegmentError
from ..front import port
from ..kern import const
from ..kern.layout import Seg
from .slots import SUPERVISOR_SLOT, SlotTable

MAGIC = b"UPCALL\r\n"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
OURS = re.compile(r"segment|vc\d+|watch|ctl|sources|sources-standby|draft-\d+-[0-9a-f]+")
"""The files of a segment's folder."""
_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_size(text: str | int) -> int:
    """Bytes in "256 MiB", "1GiB" or a number. ValueError with the value otherwise."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text) if isinstance(text, str) else None
    if not found or found[2].lower() not in _UNITS:
        raise ValueError(f"size {text!r}: write it as a number of bytes or as '256 MiB', '1 GiB'")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def check_name(name: str, what: str = "process name") -> str:
    """The name itself, if it can be one: letters, digits, `_ . -`, at most 63, not starting with `.` or `-`."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: use 1 to 63 letters, digits, '_', '.' or '-', not starting with '.' or '-'")
    return name


def folder() -> Path:
    """The folder of this user's segments: UPCALL_DIR, or one per user on the shared-memory file system. Made 0700 if it
    is missing. SegmentError if it belongs to somebody else or others may write in it."""
    given = os.environ.get("UPCALL_DIR")
    path = Path(given) if given else Path(f"/dev/shm/upcall-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=bool(given))
        found = path.stat(follow_symlinks=bool(given))
    except OSError as error:
        raise SegmentError(f"folder of segments {path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise SegmentError(f"folder of segments {path} is not a folder: set UPCALL_DIR to one of your own")
    if found.st_uid not in (os.getuid(), 0) or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
        raise SegmentError(f"folder of segments {path} can be written by others: chmod go-w it, or set UPCALL_DIR")
    return path


@dataclass(frozen=True)
class Geometry:
    """The seven numbers from which every offset follows."""

    max_vcores: int
    max_queues: int = 256
    max_types: int = const.MAX_TYPES
    max_slots: int = 1024
    page_slots: int = const.PAGE_SLOTS
    nr_pages: int = 0
    nr_spans: int = 0

    @classmethod
    def for_memory(cls, vcores: int, memory: int, queues: int = 0) -> Geometry:
        """Half of the memory for pages, half for payload blocks; room for twice the vcores (at least 16) and queues (at
        least 256), for every type that there can be, and for four attached threads for each vcore (at least 1024)."""
        page = const.PAGE_HEADER + const.PAGE_SLOTS * const.SLOT_SIZE
        nr_pages, nr_spans = memory // 2 // page, memory // 2 // const.SPAN_SIZE
        max_vcores = min(const.MAX_VCORES, max(16, 2 * vcores))
        if nr_pages < 2 * vcores + 4 or nr_spans < 1:
            raise ValueError(
                f"memory={memory} bytes is too little for {vcores} vcores: give at least {(2 * vcores + 4) * page * 2}"
            )
        if nr_pages >= const.PAGE_MASK:
            raise ValueError(f"memory={memory} bytes is more than a segment can hold ({const.PAGE_MASK * page * 2})")
        return cls(
            max_vcores=max_vcores,
            max_queues=min(const.MAX_QUEUES, max(cls.max_queues, 2 * queues)),
            max_slots=min(const.MAX_SLOTS, max(cls.max_slots, 4 * max_vcores)),
            nr_pages=nr_pages,
            nr_spans=nr_spans,
        )

    def check(self) -> None:
        """SegmentError if a number is outside its limits."""
        for name, value, least, most in (
            ("max_vcores", self.max_vcores, 1, const.MAX_VCORES),
            ("max_queues", self.max_queues, 1, const.MAX_QUEUES),
            ("max_types", self.max_types, const.TYPE_PROGRAM, const.MAX_TYPES),
            ("max_slots", self.max_slots, 2, const.MAX_SLOTS),
            ("page_slots", self.page_slots, 1, 4094),
            ("nr_pages", self.nr_pages, 1, const.PAGE_MASK - 1),
            ("nr_spans", self.nr_spans, 1, 1 << 24),
        ):
            if not least <= value <= most:
                raise SegmentError(f"{name}={value} is outside {least}..{most}")

    def seg(self) -> Seg:
        """A view with these offsets, bound to no memory yet."""
        return Seg(
            self.max_vcores,
            self.max_queues,
            self.max_types,
            self.max_slots,
            self.page_slots,
            self.nr_pages,
            self.nr_spans,
        )


class Segment:
    """One process's open segment: file, mapping, attach slots, FIFOs. Made by :func:`create` or :func:`open_segment`; `fd`
    stays the caller's. In a forked child it is a shell without mapping and files (`front/port.Attachment`)."""

    def __init__(self, path: Path, fd: int, geometry: Geometry) -> None:
        self.path = path
        self.name = path.name
        self.geometry = geometry
        seg = geometry.seg()
        # A copy of its own: a Ctrl-C between the making and the naming of the attachment leaves no doubt about who closes
        # what. After an OSError alone it is ours again.
        self.file = os.dup(fd)
        try:
            self.attachment = port.Attachment(seg, self.file, str(path))
        except OSError:
            os.close(self.file)
            raise
        self.probe = self.attachment.probe
        self.memory = memoryview(self.attachment)
        self.seg = seg
        self.slots = SlotTable(self.attachment, seg.slots, geometry.max_slots)
        self.supervisor: Seg | None = None
        self.closed = False

    def attach(self, role: int, slot: int | None = None) -> Seg:
        """A view under a name of its own, for one more thread. Give it back with `detach`."""
        return self.attachment.seg(*self.slots.take(role, slot))

    def attend(self) -> None:
        """Takes the supervisor's slot: `supervisor` is its view. SegmentError if somebody alive has it."""
        self.supervisor = self.attach(const.ROLE_SUPERVISOR, slot=SUPERVISOR_SLOT)

    def detach(self, seg: Seg) -> None:
        """Gives a thread's name back."""
        self.slots.give_back(seg.my_slot)

    def u32(self, at: int) -> int:
        """A u32 of the segment, by offset; what is read after it is at least as new (an acquire)."""
        return self.attachment.u32(at)

    def u64(self, at: int) -> int:
        """A u64, likewise."""
        return self.attachment.u64(at)

    def put_u32(self, at: int, value: int) -> None:
        """Writes a u32, after all that was written before it (a release); for words with one writer."""
        self.attachment.put_u32(at, value)

    def put_u64(self, at: int, value: int) -> None:
        """Writes a u64's low 64 bits, likewise."""
        self.attachment.put_u64(at, value & (1 << 64) - 1)

    def text(self, at: int, size: int = const.NAME_BYTES) -> str:
        """A zero-terminated name."""
        return bytes(self.memory[at : at + size]).split(b"\0", 1)[0].decode("utf-8", "replace")

    def put_text(self, at: int, text: str) -> None:
        """Writes a name; it must fit with its zero byte."""
        data = text.encode()
        self.memory[at : at + const.NAME_BYTES] = data + bytes(const.NAME_BYTES - len(data))

    def is_attended(self) -> bool:
        """Whether a living supervisor attends this process."""
        return 0 in self.slots._mine or 0 in self.slots.attached(self.probe)

    def close(self) -> None:
        """Detaches all of this process's threads and lets the mapping go once no payload view needs it."""
        if self.closed:
            return
        self.closed = True
        if not self.attachment.forked():
            self.slots.close()
            self.attachment.close_files()


def open_segment(name: str) -> Segment:
    """Opens the segment of a process. NoSuchProcess, or SegmentError saying what is wrong with the file."""
    check_name(name)
    while True:
        # Removed since it was opened: there is none, or another one.
        with contextlib.suppress(FileNotFoundError):
            return _open_file(name)


def _open_file(name: str) -> Segment:
    path = folder() / name
    try:
        fd = os.open(path / "segment", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        known = sorted(names())
        listed = ", ".join(known) if known else "none"
        raise NoSuchProcess(
            f"no process {name!r} in {path.parent} (there: {listed}); start it with upcall run"
        ) from None
    except OSError as error:
        raise SegmentError(f"segment of {name!r} ({path}): {error.strerror}") from error
    try:
        return Segment(path, fd, read_geometry(fd, name))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SegmentError(
            f"segment of {name!r} ({path}) has holes in its tables, as no segment is made, and the file system is full: "
            "free some room, or remove it with upcall clean --discard"
        ) from None
    finally:
        os.close(fd)


def read_geometry(fd: int, name: str) -> Geometry:
    """The geometry in a segment's header, checked."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise SegmentError(f"segment of {name!r} is not a regular file")
    header = os.pread(fd, const.HEADER_SIZE, 0)
    if len(header) < const.HEADER_SIZE:
        raise SegmentError(f"segment of {name!r} is too short: {len(header)} bytes, a header has {const.HEADER_SIZE}")
    if header[:8] != MAGIC:
        raise SegmentError(f"segment of {name!r} is not an upcall segment: it starts with {header[:8]!r}")
    abi, size = struct.unpack_from("I", header, const.HDR_ABI)[0], struct.unpack_from("I", header, const.HDR_BYTES)[0]
    if abi != const.ABI:
        raise SegmentError(
            f"segment of {name!r} has format {abi}, this upcall knows {const.ABI}: use the version that made it"
        )
    if size != const.HEADER_SIZE:
        raise SegmentError(f"segment of {name!r} has a header of {size} bytes, not {const.HEADER_SIZE}")
    geometry = Geometry(*struct.unpack_from("7I", header, const.HDR_MAX_VCORES))
    try:
        geometry.check()
    except SegmentError as error:
        raise SegmentError(f"segment of {name!r}: {error}") from None
    file_size = struct.unpack_from("Q", header, const.HDR_FILE_SIZE)[0]
    needed = geometry.seg().size
    if file_size != needed:
        raise SegmentError(f"segment of {name!r} states {file_size} bytes, its geometry needs {needed}")
    check, right = struct.unpack_from("I", header, const.HDR_CHECK)[0], zlib.crc32(header[: const.HDR_CHECK])
    if check != right:
        raise SegmentError(f"segment of {name!r} has a damaged header: checksum {check}, not {right}, with {geometry}")
    if found.st_size < needed:
        raise SegmentError(f"segment of {name!r} is too short: {found.st_size} bytes, its header says {needed}")
    return geometry


def leads_to(path: Path, fd: int) -> bool:
    """Whether the segment of this folder is the open file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path / "segment", follow_symlinks=False), os.fstat(fd))
    return False


def is_in_place(segment: Segment) -> bool:
    """Whether its name leads to this segment, and not to a later one or to none."""
    return leads_to(segment.path, segment.file)


def create(name: str, geometry: Geometry, *, attended: bool = False) -> Segment:
    """Makes a new segment, attended by us before anybody can see it if that is wanted. FileExistsError if there is one of
    this name; SegmentError if the file system is full."""
    check_name(name)
    geometry.check()
    path = folder() / name
    path.mkdir(mode=0o700, exist_ok=True)
    seg = geometry.seg()
    draft = path / f"draft-{os.getpid()}-{secrets.token_hex(4)}"
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    segment = None
    try:
        os.ftruncate(fd, seg.size)
        # The tables are made real now, so that only pages and blocks can meet a full file system, and they ask first.
        os.posix_fallocate(fd, 0, seg.tables_end)
        os.pwrite(fd, _header(name, geometry, seg.size), 0)
        segment = Segment(path, fd, geometry)
        if attended:
            segment.attend()
        os.link(draft, path / "segment")
    except OSError as error:
        if segment is not None:
            segment.close()
        draft.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.rmdir()  # unless somebody else has begun here
        if error.errno == errno.ENOSPC:
            raise SegmentError(
                f"no room for the segment of {name!r} in {path.parent} ({seg.tables_end} bytes to begin with): "
                "free some, or set UPCALL_DIR to a larger file system"
            ) from error
        raise
    finally:
        os.close(fd)
        draft.unlink(missing_ok=True)
    return segment


def _header(name: str, geometry: Geometry, size: int) -> bytes:
    header = bytearray(const.HEADER_SIZE)
    header[:8] = MAGIC
    struct.pack_into("II", header, const.HDR_ABI, const.ABI, const.HEADER_SIZE)
    struct.pack_into("Q", header, const.HDR_FILE_SIZE, size)
    struct.pack_into(
        "7I", header, const.HDR_MAX_VCORES, geometry.max_vcores, geometry.max_queues, geometry.max_types,
        geometry.max_slots, geometry.page_slots, geometry.nr_pages, geometry.nr_spans,
    )  # fmt: skip
    struct.pack_into("I", header, const.HDR_CHECK, zlib.crc32(header[: const.HDR_CHECK]))
    struct.pack_into("Q", header, const.HDR_CREATION, secrets.randbits(64))
    header[const.HDR_NAME : const.HDR_NAME + len(name)] = name.encode()
    return bytes(header)


def make_fifos(segment: Segment) -> None:
    """Makes the FIFOs beside a segment that this process attends: only now is nobody left who might remove them. Those
    that are there stay. Drafts go, which starters that died have left: no draft becomes the segment any more."""
    for draft in drafts(segment.path):
        draft.unlink(missing_ok=True)
    for name in ("watch", *(f"vc{v}" for v in range(segment.geometry.max_vcores))):
        with contextlib.suppress(FileExistsError):
            os.mkfifo(segment.path / name, 0o600)


def drafts(path: Path) -> list[Path]:
    """The drafts of segments in a folder; not those of sockets, which their makers have no other for. A starter that lives
    and misses its draft makes another one."""
    return [draft for draft in path.glob("draft-*") if OURS.fullmatch(draft.name) and draft.is_file()]


def remove(segment: Segment) -> None:
    """Unlinks a segment that this process attends."""
    remove_files(segment.path)


def remove_files(path: Path) -> None:
    """Removes a segment's files and its folder; what else lies there stays, and so does the folder then. The segment file
    goes last: until then a starter finds it, and waits for the supervisor's slot that we hold."""
    for entry in sorted(path.iterdir(), key=lambda file: file.name == "segment"):
        if OURS.fullmatch(entry.name):
            entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()


def names(*, without: bool = False) -> Iterator[str]:
    """The names of all processes that have a segment here, running or not; of those `without` one, of which something
    else is left."""
    with os.scandir(folder()) as entries:
        for entry in entries:
            there = entry.is_dir(follow_symlinks=False) and os.path.lexists(os.path.join(entry.path, "segment"))
            if there != without and entry.is_dir(follow_symlinks=False):
                yield entry.name
