"""Files read and written at absolute offsets by several threads, on every operating system.

`open_data_file` gives a `PosixFile` (pread, pwrite, copy_file_range) where the system has those calls, else its
portable twin (a lock around seek, read and write). Set GPTOSS_CONVERT_PORTABLE_FILES=1 to force the twin.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import numpy as np

from .errors import CheckpointError
from .linux import allocate, begin_writeback
from .windows import set_length
from .zeros import is_zero

PORTABLE_VARIABLE = "GPTOSS_CONVERT_PORTABLE_FILES"

# One copy_file_range call moves at most this much, so that progress is seen and a signal is served.
COPY_BYTES = 16 << 20

# One write call takes this much. For larger ones Linux takes larger runs of memory for its page cache, which on a
# virtual machine are those it must first get from its host; smaller ones cost more calls. Measured there for a
# conversion of 4.2 GB with its proof: 6.5 s in pieces of 16 kB, 3.7 of 64, 3.3 of 128, 4.2 of 256, 5.2 of 512.
WRITE_BYTES = 128 << 10

# What copy_file_range says where the file systems cannot do it together; then bytes go through a buffer.
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


class DataFile(ABC):
    """An open file with positioned reads and writes. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sparse = False

    @abstractmethod
    def _read(self, buffer: memoryview, offset: int) -> int: ...

    @abstractmethod
    def _write(self, data: memoryview, offset: int) -> int: ...

    @abstractmethod
    def fileno(self) -> int: ...

    @abstractmethod
    def close(self) -> None: ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills `buffer` (bytes) from `offset`. Raises CheckpointError if the file ends before."""
        done = 0
        while done < len(buffer):
            try:
                n_bytes = self._read(buffer[done:], offset + done)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            if n_bytes == 0:
                raise CheckpointError(
                    "the file ended while it was being read",
                    file=self.path,
                    expected=f"{len(buffer)} bytes from offset {offset}",
                    found=f"{done} bytes",
                    remedy="Do not change the files while they are converted; download the file again if it is short.",
                )
            done += n_bytes

    def write_at(self, data: memoryview, offset: int) -> None:
        """Writes all of `data` (bytes) at `offset`. Raises OSError naming the file."""
        if self._sparse and is_zero(np.frombuffer(data, np.uint8)):
            return
        done = 0
        while done < len(data):
            try:
                done += self._write(data[done : done + WRITE_BYTES], offset + done)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from error

    def copy_from(self, source: DataFile, source_offset: int, offset: int, n_bytes: int, buffer: memoryview) -> None:
        """Copies `n_bytes` of `source` into this file, through `buffer` where the kernel cannot do it."""
        done = 0
        while done < n_bytes:
            part = buffer[: min(len(buffer), n_bytes - done)]
            source.read_into(part, source_offset + done)
            self.write_at(part, offset + done)
            done += len(part)

    def resize(self, n_bytes: int, *, sparse: bool = False) -> None:
        """Makes the file `n_bytes` long; bytes never written read as zero. Raises OSError, also for a full disk.

        With `sparse`, no space is set aside, and `write_at` leaves zeros as holes where the file system has such.
        """
        set_length(self.fileno(), n_bytes, sparse=sparse)
        self._sparse = sparse

    def sync(self) -> None:
        """Returns once every byte is on the disk."""
        os.fsync(self.fileno())

    def __enter__(self) -> DataFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PosixFile(DataFile):
    """Positioned reads and writes by the kernel: no lock, no shared position."""

    def __init__(self, path: Path, flags: int) -> None:
        super().__init__(path)
        self._writing = threading.Lock()
        self._fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)

    def _read(self, buffer: memoryview, offset: int) -> int:
        return os.preadv(self._fd, [buffer], offset)

    def _write(self, data: memoryview, offset: int) -> int:
        return os.pwrite(self._fd, data, offset)

    def write_at(self, data: memoryview, offset: int) -> None:
        # File systems let one writer at a time into a file; a thread that waits in the kernel for its turn spins.
        with self._writing:
            super().write_at(data, offset)
        begin_writeback(self._fd, offset, len(data))

    def resize(self, n_bytes: int, *, sparse: bool = False) -> None:
        super().resize(n_bytes, sparse=sparse)
        if not sparse:
            allocate(self._fd, n_bytes)

    def copy_from(self, source: DataFile, source_offset: int, offset: int, n_bytes: int, buffer: memoryview) -> None:
        done = 0
        # The kernel would write out the zeros of holes.
        while done < n_bytes and hasattr(os, "copy_file_range") and not self._sparse:
            want = min(COPY_BYTES, n_bytes - done)
            try:
                moved = os.copy_file_range(source.fileno(), self._fd, want, source_offset + done, offset + done)
            except OSError as error:
                if error.errno in _NO_KERNEL_COPY:
                    break
                raise
            if moved == 0:
                break
            begin_writeback(self._fd, offset + done, moved)
            done += moved
        super().copy_from(source, source_offset + done, offset + done, n_bytes - done, buffer)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PortableFile(DataFile):
    """The twin for systems without pread: one lock around the file's position."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path)
        self._file = Path(path).open(mode, buffering=0)  # noqa: SIM115 - closed by close()
        self._lock = threading.Lock()

    def _read(self, buffer: memoryview, offset: int) -> int:
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(buffer) or 0  # type: ignore[attr-defined]

    def _write(self, data: memoryview, offset: int) -> int:
        with self._lock:
            self._file.seek(offset)
            return self._file.write(data) or 0

    def resize(self, n_bytes: int, *, sparse: bool = False) -> None:
        with self._lock:
            set_length(self._file.fileno(), n_bytes, sparse=sparse)
        self._sparse = sparse

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def uses_portable_files() -> bool:
    """True where the portable twin is used: the system has no positioned calls, or the variable asks for it."""
    return os.environ.get(PORTABLE_VARIABLE) == "1" or not (hasattr(os, "preadv") and hasattr(os, "pwrite"))


def open_data_file(path: Path, *, create: bool = False) -> DataFile:
    """Opens `path` to read, or creates it anew to read and write. Raises OSError."""
    if uses_portable_files():
        return PortableFile(path, "w+b" if create else "rb")
    return PosixFile(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC if create else os.O_RDONLY)


def replace_file(source: Path, target: Path) -> None:
    """Renames `source` to `target` in one step, replacing it. Raises OSError."""
    source.replace(target)


def sync_directory(directory: Path) -> None:
    """Makes renames inside `directory` durable; does nothing where directories cannot be synced (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems refuse fsync on a directory; the rename itself has happened.
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def holds_holes(path: Path) -> bool:
    """True if the file takes less space on the disk than it has bytes. False where that cannot be told (Windows)."""
    status = path.stat()
    return getattr(status, "st_blocks", status.st_size) * 512 < status.st_size


def free_bytes(directory: Path) -> int:
    """Bytes that this user may still write below `directory`. Raises OSError."""
    return shutil.disk_usage(directory).free
