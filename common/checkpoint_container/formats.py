"""What a file is when it is no checkpoint of today's form; each kind has its own answer."""

from __future__ import annotations

import stat
from pathlib import Path

from common.checkpoint_container.zip_headers import LOCAL_SIGNATURE
from common.exits import InputFileError

_RESAVE = (
    "if you trust where it is from, load it with torch.load(path, weights_only=True) and save it again with torch.save"
)
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_TAR_MAGIC, _TAR_MAGIC_OFFSET = b"ustar", 257
HEAD_BYTES = _TAR_MAGIC_OFFSET + len(_TAR_MAGIC)

# kind, beginning of the file, what it is, what to do
_BEGINNINGS = (
    (
        "legacy",
        _LEGACY_MAGIC,
        "a checkpoint in PyTorch's old format (before 1.6), whose bytes cannot be verified",
        _RESAVE,
    ),
    ("numpy", b"\x93NUMPY", "a NumPy array", "give a file that torch.save wrote"),
    ("hdf5", b"\x89HDF\r\n\x1a\n", "an HDF5 file", "give a file that torch.save wrote"),
    ("gzip", b"\x1f\x8b", "a gzip file", "unpack it first"),
    ("zstd", b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first"),
    ("git-lfs", b"version https://git-lfs", "a Git LFS pointer instead of the file itself", "run git lfs pull"),
    ("text", b"<", "an HTML or XML page, perhaps of a failed download", "download it again"),
)


class NotACheckpointError(InputFileError):
    """The file is missing, or something else than a checkpoint; ``kind`` says what in one word."""

    def __init__(self, kind: str, message: str, *, path: Path, hint: str | None = None) -> None:
        super().__init__(message, path=path, hint=hint)
        self.kind = kind


def require_regular_file(path: Path) -> int:
    """The size in bytes of the file at ``path``.

    Raises:
        NotACheckpointError: missing, unreadable, a folder or a device, or empty.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise NotACheckpointError("missing", "no such file", path=path) from None
    except OSError as error:
        raise NotACheckpointError("unreadable", f"cannot be read ({error.strerror})", path=path) from None
    if not stat.S_ISREG(status.st_mode):
        raise NotACheckpointError("not-a-file", "not a regular file", path=path)
    if status.st_size == 0:
        hint = "its writing was interrupted, or the disk was full: use another checkpoint"
        raise NotACheckpointError("empty", "the file is empty (0 bytes)", path=path, hint=hint)
    return status.st_size


def refuse_other_formats(path: Path, head: bytes) -> None:
    """Raise the answer for a file that is no zip archive, by how it begins.

    Raises:
        NotACheckpointError: always.
    """
    for kind, beginning, what, hint in _BEGINNINGS:
        if head.startswith(beginning):
            raise NotACheckpointError(kind, f"it is {what}", path=path, hint=hint)
    if head[_TAR_MAGIC_OFFSET:].startswith(_TAR_MAGIC):
        what = "it is a tar archive, as PyTorch before 0.1.10 wrote, whose bytes cannot be verified"
        raise NotACheckpointError("tar", what, path=path, hint=_RESAVE)
    if len(head) > 2 and head[0] == 0x80 and head[1] <= 5:
        what = "it is a bare pickle, not a file that torch.save wrote; unpickling it could run any code"
        raise NotACheckpointError("pickle", what, path=path, hint="it was not opened")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 * 2**20:
        what = "it is a safetensors file, which holds weights alone"
        raise NotACheckpointError("safetensors", what, path=path, hint="give a file that torch.save wrote")
    what = "it is not a checkpoint (a zip archive that torch.save wrote)"
    raise NotACheckpointError("unknown", what, path=path)


def refuse_other_archives(path: Path, record_paths: set[str]) -> None:
    """Raise the answer for a zip archive that holds something else than a checkpoint; return where it may be one.

    Raises:
        NotACheckpointError: a TorchScript, exported, NumPy or other archive.
    """
    if "constants.pkl" in record_paths:
        hint = "test_inference.py runs it; the checkpoint that it was exported from can be inspected"
        raise NotACheckpointError("torchscript", "it is a TorchScript model, not a checkpoint", path=path, hint=hint)
    if "archive_format" in record_paths or "serialized_exported_program.json" in record_paths:
        raise NotACheckpointError("exported", "it is a model that torch.export saved, not a checkpoint", path=path)


def refuse_archive_without_structure(path: Path, record_names: list[str]) -> None:
    """Raise the answer for a sound zip archive without ``data.pkl``.

    Raises:
        NotACheckpointError: always.
    """
    if record_names and all(name.endswith(".npy") for name in record_names):
        raise NotACheckpointError("npz", "it is a NumPy .npz archive, not a checkpoint", path=path)
    raise NotACheckpointError("zip", "it is a zip archive without a checkpoint inside (no data.pkl)", path=path)


def begins_like_archive(head: bytes) -> bool:
    return head.startswith(LOCAL_SIGNATURE)
