"""The one call that Windows has in another way: a long file without content.

Python's truncate writes zeros there, as many as the file gets longer, and they take their room on the disk.
"""

from __future__ import annotations

import os
import sys

_SET_SPARSE = 0x900C4  # FSCTL_SET_SPARSE


def set_length(fd: int, n_bytes: int, *, sparse: bool = False) -> None:
    """Makes the open file `n_bytes` long; what was not written reads as zero. Raises OSError.

    With `sparse` no byte is written and no space is taken, where the file system can.
    """
    if sys.platform == "win32" and sparse and _set_length_sparsely(fd, n_bytes):
        return
    os.ftruncate(fd, n_bytes)


if sys.platform == "win32":

    def _set_length_sparsely(fd: int, n_bytes: int) -> bool:
        """False if the file system has no sparse files."""
        import ctypes
        import msvcrt

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handle, ignored = ctypes.c_void_p(msvcrt.get_osfhandle(fd)), ctypes.c_uint32()
        if not kernel.DeviceIoControl(handle, _SET_SPARSE, None, 0, None, 0, ctypes.byref(ignored), None):
            return False
        os.lseek(fd, n_bytes, os.SEEK_SET)
        return bool(kernel.SetEndOfFile(handle))
