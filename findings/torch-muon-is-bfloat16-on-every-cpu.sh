#!/bin/sh
# PyTorch 2.14.1: torch.optim.Muon computes its steps in bfloat16, on every device and of weights in any precision.
#
# It has no option for that, and on a CPU that has no instructions for bfloat16 (AVX2, or AVX-512 without the extension)
# a product of such matrices is 28 times slower than in float32: 69 against 2.4 ms for 256 × 1,024 × 256 on one core of an
# AMD EPYC with AVX2 alone, which made training of a small Conformer four times slower. The steps are coarse, too: of
# a matrix of float64 weights every entry of the step has 8 significant bits. One would expect an optimiser to compute in the
# precision of its weights, as AdamW does.
# Usage: sh findings/torch-muon-is-bfloat16-on-every-cpu.sh    (PIP names another installer, such as PIP="uv pip")
# Exits with 0 where all is as described, with 1 where this release behaves otherwise.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PIP:-python3 -m pip} install --quiet --target "$folder/packages" torch==2.14.1 numpy==2.4.6

cat > "$folder/ask.py" <<'END'
import time

import torch

torch.set_num_threads(1)
torch.manual_seed(1)
weight = torch.nn.Parameter(torch.zeros(16, 40, dtype=torch.float64))
weight.grad = torch.randn(16, 40, dtype=torch.float64)
torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()
step = weight.detach()
coarse = bool((step == step.bfloat16().double()).all())
print(f"a step of float64 weights has {'no more than 8' if coarse else 'more than 8'} significant bits")
seconds = {}
for kind in (torch.float32, torch.bfloat16):
    one, other = torch.randn(256, 1024).to(kind), torch.randn(1024, 256).to(kind)
    one @ other
    began = time.process_time()
    for _ in range(5):
        one @ other
    seconds[kind] = (time.process_time() - began) / 5
print("a product of 256 x 1,024 x 256:", ", ".join(f"{kind}: {1e3 * each:.1f} ms" for kind, each in seconds.items()))
raise SystemExit(0 if coarse else 1)
END
PYTHONPATH="$folder/packages" python3 "$folder/ask.py"
