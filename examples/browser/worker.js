/** The model, in a thread of its own: the page stays alive while it computes. */

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { readContract, UserError } from "./contract.js";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need a page that is cross-origin isolated
ort.env.logLevel = "error";

let session = null;
let outputs = ["scores"]; // that the model gives

async function load(bytes) {
  const contract = readContract(bytes);
  await session?.release();
  session = null;
  try {
    // No memory pattern: every length is a new shape, and a pattern would be kept for each.
    session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], enableMemPattern: false });
  } catch (problem) {
    throw new UserError(`The model cannot be run in this browser (${problem.message.slice(0, 200)}).`);
  }
  outputs = contract.outputs;
  await replayGolden(contract);
  return contract;
}

/** Does this file, in this browser, still give the answer that PyTorch gave? */
async function replayGolden({ golden, labels }) {
  const { scores } = await run(golden.input);
  const equal =
    scores.length === labels.length && scores.length === golden.scores.length &&
    scores.every((score, i) => Math.abs(score - golden.scores[i]) <= golden.tolerance);
  if (!equal) throw new UserError("The model does not give its recorded answer here. Export it again.");
}

async function run(samples) {
  const began = performance.now();
  const sound = {
    waveform: new ort.Tensor("float32", samples, [1, samples.length]),
    lengths: new ort.Tensor("int64", BigInt64Array.of(BigInt(samples.length)), [1]),
  };
  const { scores, embedding } = await session.run(sound, outputs);
  return { scores: scores.data, embedding: embedding?.data, milliseconds: performance.now() - began };
}

const tasks = { load, run };
let last = Promise.resolve(); // one task after another: a session runs one at a time

self.onmessage = ({ data: { id, task, argument } }) => {
  last = last
    .then(() => tasks[task](argument))
    .then((result) => self.postMessage({ id, result }))
    .catch((problem) => self.postMessage({ id, problem: problem.message, expected: problem instanceof UserError }));
};
