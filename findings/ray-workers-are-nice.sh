#!/bin/sh
# Ray 2.60.0: what ray.init() starts to do the work, tasks, actors and replicas of Ray Serve, runs at niceness 15.
#
# On a machine of one's own nobody notices. Where other processes want the cores too, a worker gets about a thirtieth of
# what each of them gets (the kernel's weights are 1024 at niceness 0 and 36 at 15): a service that answered in 60 ms with
# RAY_worker_niceness=0 took 2.9 s without it, on two cores with some fifteen other processes. One would expect workers to
# have the niceness of the program that starts them.
# Usage: sh findings/ray-workers-are-nice.sh    (PIP names another installer, such as PIP="uv pip")
# Exits with 0 where all is as described, with 1 where this release behaves otherwise.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PIP:-python3 -m pip} install --quiet --target "$folder/packages" ray==2.60.0

cat > "$folder/ask.py" <<'END'
import logging
import os
import sys

import ray

settings = {"include_dashboard": False, "object_store_memory": 80 << 20, "log_to_driver": False}
ray.init("local", num_cpus=1, logging_level=logging.ERROR, _temp_dir=sys.argv[1], **settings)
print(os.nice(0), ray.get(ray.remote(lambda: os.nice(0)).remote()))
ray.shutdown()
END

changed=0
try() {  # what, the expected niceness of the program and of a worker, and variables
    what=$1 expected=$2
    shift 2
    found=$(env RAY_USAGE_STATS_ENABLED=0 HOME="$folder" PYTHONPATH="$folder/packages" "$@" \
        python3 "$folder/ask.py" "$folder/ray" 2>/dev/null)
    echo "$what: niceness of the program and of a worker: $found, expected $expected"
    [ "$found" = "$expected" ] || changed=1
}
try "as it comes" "0 15"
try "with RAY_worker_niceness=0" "0 0" RAY_worker_niceness=0
exit $changed
