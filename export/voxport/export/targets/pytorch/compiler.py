"""The C++ compiler that AOTInductor calls. This module needs nothing but Python, so that doctor can ask it."""

import os
import platform
import shutil
from dataclasses import dataclass

_GET = {
    "Linux": "apt-get install g++ (Debian, Ubuntu) or dnf install gcc-c++ (Fedora, Red Hat)",
    "Darwin": "xcode-select --install",
    "Windows": "install the Visual Studio Build Tools with C++, and start from their prompt",
}
_USUAL = {"Darwin": "clang++", "Windows": "cl"}


@dataclass(frozen=True)
class Compiler:
    """The compiler's `name`, its `path` (None where it is not there), and what brings one to this system."""

    name: str
    path: str | None
    get: str


def find_compiler() -> Compiler:
    """The compiler named in CXX, else the usual one of this system."""
    system = platform.system()
    name = os.environ.get("CXX") or _USUAL.get(system, "g++")
    return Compiler(name, shutil.which(name), _GET.get(system, "install one"))
