"""What the libraries under voxport would report to their makers is switched off, before they are imported.

A runtime that listens to voices tells nobody that it was used. Everything that imports ONNX Runtime in voxport
comes here first, by way of `import_onnxruntime`; the command line does so before anything else, so that
the processes that it starts inherit the settings. A variable that the user has set is left alone.
"""

import importlib
import os
import sys
from typing import Any

# What each of them stops is told in docs/privacy.md.
NOT_REPORTED = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime from 1.29 on, on Linux; read when it is imported
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray; read when a cluster is started
}


def keep_private() -> None:
    """Set the variables of `NOT_REPORTED` that the user has not set. Cheap; may be called any number of times."""
    for name, value in NOT_REPORTED.items():
        os.environ.setdefault(name, value)


def import_openvino() -> Any:
    """The module openvino, which on its import would report that to its maker. Raises what the import raises.

    No variable stops it. Without the package that sends, which is hidden from it here, it takes a stand-in of its own
    that does nothing. Where openvino is loaded already, nothing can be kept from it any more.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it then fails
    return importlib.import_module("openvino")
