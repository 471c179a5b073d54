"""What lies around a model in a Triton repository: labels, warm-up data, input for perf_analyzer, a README."""

import base64
import json

import numpy as np

from voxport.export.errors import ExportError
from voxport.export.targets.triton.config import LABELS_FILE, Served, TritonOptions, typical_length
from voxport.runtime.contract import Contract
from voxport.runtime.length_range import LengthRange

PERF_FILE = "perf_input.json"
_RELEASE = "25.03"


def labels_text(contract: Contract) -> str:
    """The labels, one a line, in the order of the scores' columns.

    Raises:
        ExportError: a label holds a line break, which Triton would take for two labels.
    """
    for label in contract.labels:
        if len(label.splitlines()) != 1:
            raise ExportError(f"label {label!r}: Triton's labels file has one label a line; rename it and train again")
    return "\n".join(contract.labels) + "\n"


def warmup_lengths(model: Served) -> bytes:
    """The `lengths` of the warm-up request, little-endian as Triton reads it."""
    return np.array([typical_length(model)], f"<i{np.dtype(model.inputs[1].dtype).itemsize}").tobytes()


def perf_input(model: Served, options: TritonOptions) -> str:
    """Input for perf_analyzer: the golden input, repeated to the typical length. Random lengths would be refused."""
    length, golden = typical_length(model), model.contract.golden.input.values
    values = np.resize(golden, (length, *golden.shape[1:])).astype("<f4")
    lead = [] if options.max_batch else [1]
    entry = {
        model.inputs[0].name: {
            "content": {"b64": base64.b64encode(values.tobytes()).decode("ascii")},
            "shape": [*lead, *values.shape],
        },
        model.inputs[1].name: {"content": [length], "shape": [1]},
    }
    return json.dumps({"data": [entry]}) + "\n"


def readme_text(model: Served, options: TritonOptions, built_with: dict[str, str]) -> str:
    """How to serve the model, ask it and measure it."""
    contract, name = model.contract, options.name
    allowed = LengthRange.of_input(contract)
    source, lengths = model.inputs
    length = typical_length(model)
    tail = "".join(f",{dim}" for dim in source.shape[2:])
    lead = "" if options.max_batch else "1,"
    on_gpu = options.device != "cpu"
    gpus = "--gpus all " if on_gpu else ""
    shape = f"{length}{tail}"
    python_shape = ", ".join(["1", *shape.split(",")])
    length_shape = "[1, 1]" if options.max_batch else "[1]"
    dtype = lengths.dtype.upper()
    output, wanted, meaning = _answer(contract)
    return f"""# {name}

{len(contract.labels)} speakers, {contract.precision}, recipe {contract.recipe}; served by Triton's {model.by} back end.
What the model is says `contract.json`: features, lengths, labels, threshold.

## Serve

Run these in the folder that holds the model repository, here called `models`:

```
RELEASE={_RELEASE}
docker run --rm {gpus}-p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD/models:/models" \\
  nvcr.io/nvidia/tritonserver:$RELEASE-py3 tritonserver --model-repository=/models
```

{_release_note(model, built_with)}

## Measure

```
docker run --rm --net host -v "$PWD/models/{name}:/data" nvcr.io/nvidia/tritonserver:$RELEASE-py3-sdk \\
  perf_analyzer -m {name} -i grpc -u localhost:8001 --input-data /data/{PERF_FILE} \\
  --shape {source.name}:{lead}{shape} --shape {lengths.name}:1 --concurrency-range 1:16 --percentile 95
```

`{PERF_FILE}` repeats a real input to {length} {allowed.unit}. Without it perf_analyzer sends random lengths.

## Ask

```python
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient("localhost:8001")
{source.name} = np.zeros(({python_shape}), np.float32)  # yours
inputs = [triton.InferInput("{source.name}", {source.name}.shape, "FP32")]
inputs[0].set_data_from_numpy({source.name})
inputs.append(triton.InferInput("{lengths.name}", {length_shape}, "{dtype}"))
inputs[1].set_data_from_numpy(np.full({length_shape}, {source.name}.shape[1], np.{lengths.dtype}))
outputs = [{wanted}
print(client.infer("{name}", inputs, outputs=outputs).as_numpy("{output}"))
```

## Lengths and batches

- {source.name} must have {allowed.shortest} to {allowed.longest} {allowed.unit}. Triton does not check
  this; the client must.
- {_batch_note(options, source.name)}
- {meaning}
"""


def _answer(contract: Contract) -> tuple[str, str, str]:
    """The output that an example asks for, how it does, and what the answer means."""
    if "scores" not in contract.outputs:
        return (
            "embedding",
            'triton.InferRequestedOutput("embedding")]  # of unit length',
            "Embeddings have unit length: the cosine of two voices is their product. The model gives no scores.",
        )
    return (
        "scores",
        'triton.InferRequestedOutput("scores", class_count=3)]  # the three best, with their names',
        f"Scores are score scale × cosine, with a scale of {contract.score_scale:g}; softmax over them gives "
        f"probabilities.\n  `{LABELS_FILE}` names their columns.",
    )


def _release_note(model: Served, built_with: dict[str, str]) -> str:
    if model.by == "onnxruntime":
        return "Any release from 24.08 on has an ONNX Runtime that reads this file."
    made = ", ".join(f"{key} {value}" for key, value in sorted(built_with.items()))
    return (
        f"The plan was built with {made}. Take the release whose TensorRT is the same, and run it on the same GPU:\n"
        "https://docs.nvidia.com/deeplearning/frameworks/support-matrix lists them. A version-compatible plan also\n"
        "needs `--backend-config=tensorrt,version-compatible=true`, and runs the native code that it carries."
    )


def _batch_note(options: TritonOptions, source: str) -> str:
    if not options.max_batch:
        return "Triton does not batch: every request is a batch of its own, of any number of rows."
    return (
        f"Triton puts requests of **equal** length into one batch of up to {options.max_batch} rows. To have others\n"
        f"  batched too, pad {source} to a few common lengths and give the true ones in `lengths`; padding changes no\n"
        "  answer. Ragged batching is no way out: it joins the requests end to end, which this graph does not take."
    )
