"""Fuzz one target with atheris, or all of them in turn.

    pip install atheris
    python -m fuzz.run audio --seconds 60        # in the repository's root
    python -m fuzz.run all --seconds 60

New inputs are kept in fuzz/corpus/TARGET, and an input that breaks something in fuzz/crashes/.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = (
    *("audio", "contract", "contract_values", "gallery", "gallery_member", "media", "onnx", "onnx_contract"),
    *("rtx", "rtx_values", "samples", "stream", "timeline", "torch", "torch_member", "torch_size", "torch_values"),
)


def main() -> int:
    """Fuzz in this process, or every target in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description="Fuzz voxport's readers of foreign input.")
    parser.add_argument("target", choices=[*NAMES, "all"])
    parser.add_argument("--seconds", type=int, default=60, help="time for each target (60)")
    options = parser.parse_args()
    if options.target == "all":
        command = [sys.executable, "-m", "fuzz.run", "--seconds", str(options.seconds)]
        return max(subprocess.run([*command, name], cwd=ROOT, check=False).returncode for name in NAMES)
    return fuzz(options.target, options.seconds)


def fuzz(name: str, seconds: int) -> int:
    """Run libFuzzer; it ends the process where it finds something."""
    try:
        import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        sys.stderr.write("error: atheris is not installed; pip install atheris\n")
        return 1
    with atheris.instrument_imports(include=["voxport", "json"]):
        from fuzz.targets import TARGETS
    from fuzz.mutations import damaged
    from fuzz.seeds import SEEDS

    corpus, crashes = ROOT / "fuzz" / "corpus" / name, ROOT / "fuzz" / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(exist_ok=True)
    for seed in SEEDS[name]():
        for data in (seed, *damaged(seed, 0, 6)):
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    limits = ["-timeout=20", "-rss_limit_mb=1024", "-max_len=65536", "-print_final_stats=1"]
    where = [f"-max_total_time={seconds}", f"-artifact_prefix={crashes}/{name}-", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *where], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
