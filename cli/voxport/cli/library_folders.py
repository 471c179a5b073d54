"""Folders of the libraries' own caches, told to them before they are imported.

Matplotlib keeps a list of the machine's fonts and PyTorch's compiler what it compiled; left alone they write
below ~/.config, ~/.cache and /tmp. Here both go below voxport's own cache. Where that cannot be written they go into
the folder for temporary files, so that a read-only home, or none, stops no command.
"""

import os

# The variable that names each library's folder, and the folder below the cache.
_FOLDERS = {
    "MPLCONFIGDIR": "matplotlib",  # Matplotlib
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",  # torch.compile and AOTInductor
    "TRITON_CACHE_DIR": "triton",  # the compiler of GPU kernels that torch.compile uses
}

_SHARED = "/tmp"


def set_library_folders() -> None:
    """Set those of the variables that the user has not set, for this process and for those that it starts."""
    root = _root()
    for variable, name in _FOLDERS.items():
        if root:
            os.environ.setdefault(variable, os.path.join(root, name))


def _root() -> str:
    """Voxport's cache, as `voxport.runtime.storage.cache_root` finds it; else a folder for temporary files; or ""."""
    home = os.path.expanduser("~")
    own = os.environ.get("VOXPORT_CACHE") or (os.path.join(home, ".cache", "voxport") if home != "~" else "")
    if own and _can_be_made(os.path.abspath(own)):
        return os.path.abspath(own)
    for folder in (*(os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")), _SHARED):
        if folder and _can_be_made(folder) and (mine := _private_folder(folder)):
            return mine
    return ""


def _private_folder(folder: str) -> str:
    """A folder in `folder` that is this user's alone; "" where another user, who shares it, has taken the name.

    What PyTorch compiled is run again from its cache, so nobody else may write there.
    """
    mine = os.path.join(folder, f"voxport-{os.getuid()}" if hasattr(os, "getuid") else "voxport")
    try:
        os.makedirs(mine, mode=0o700, exist_ok=True)
        found = os.lstat(mine)
    except OSError:
        return ""
    owned = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
    return mine if owned and not os.path.islink(mine) else ""


def _can_be_made(folder: str) -> bool:
    """Whether `folder`, or the nearest folder above it that exists, can be written."""
    while folder and not os.path.lexists(folder):
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
