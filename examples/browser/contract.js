/**
 * What a voxport model says about itself. ONNX Runtime Web does not hand out a file's metadata, so it is read here.
 *
 * An ONNX file is one protobuf message (onnx.proto, ModelProto): a list of fields, each a number, a wire type and,
 * where its size varies, a length. Weights and nodes are stepped over. The file may be cut short or hostile: every
 * length is checked against the file, and the number of fields is bounded.
 */

import { USUAL_RULE } from "./speech.js";
import { USUAL_WINDOWING } from "./windows.js";

const KEY = "voxport.contract";
const METADATA = 14; // ModelProto.metadata_props: entries of key (1) and value (2)
const MAX_FIELDS = 200_000;
const MAX_CONTRACT_BYTES = 8 << 20;

/** Something that the person in front of the page can put right: `message` is shown as it is. */
export class UserError extends Error {}

const damaged = (why) => new UserError(`This is not an ONNX model, or it is damaged (${why}).`);

/** The fields of `bytes`, one by one: {number, value} of integers, {number, payload} of the rest. */
function* fields(bytes, budget) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= bytes.length) throw damaged("it ends within a number");
      const byte = bytes[at++];
      value += (byte & 0x7f) * 2 ** shift; // not <<, which works in 32 bits
      if (byte < 0x80) return value;
    }
    throw damaged("a number is too long");
  };
  const skip = (length) => {
    if (length > bytes.length - at) throw damaged("a part reaches behind the end of the file");
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    if (--budget.fields < 0) throw damaged("it has too many parts");
    const tag = varint();
    const number = Math.floor(tag / 8);
    if (number < 1) throw damaged("a part has no number");
    const type = tag % 8;
    if (type === 0) yield { number, value: varint() };
    else if (type === 2) yield { number, payload: skip(varint()) };
    else if (type === 1) yield { number, payload: skip(8) };
    else if (type === 5) yield { number, payload: skip(4) };
    else throw damaged(`a part of unknown kind ${type}`);
  }
}

/** The contract's JSON text in an ONNX file; null where it has none. */
export function contractText(bytes) {
  if (bytes.length === 0) throw damaged("it is empty");
  const budget = { fields: MAX_FIELDS };
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  let found = null;
  for (const { number, payload } of fields(bytes, budget)) {
    if (number !== METADATA || payload === undefined) continue;
    const entry = {};
    for (const field of fields(payload, budget)) entry[field.number] = field.payload;
    if (entry[1] === undefined || entry[2] === undefined || entry[1].length !== KEY.length) continue;
    if (String.fromCharCode(...entry[1]) !== KEY) continue;
    if (found !== null) throw damaged("it has two contracts");
    if (entry[2].length > MAX_CONTRACT_BYTES) throw damaged("its contract is too large");
    try {
      found = utf8.decode(entry[2]);
    } catch {
      throw damaged("its contract is not UTF-8");
    }
  }
  return found;
}

// Least and most of the numbers that say how long sounds are heard, and what speech is.
const WINDOWING_RANGES = { hop: [0.05, 1], floor_db: [-120, 0], range_db: [1, 120], margin_s: [0, 10] };
const SPEECH_RANGES = {
  floor_db: [-120, 0], range_db: [1, 120], min_seconds: [0, 3600], min_share: [0, 1], swing_db: [0, 120],
  variety_db: [0, 120], flatness_db: [-200, 0],
};
const TEMPERATURE_RANGES = { temperature: [1e-3, 1e6] };
const POINT_RANGES = { seconds: [1e-3, 1e6], ...TEMPERATURE_RANGES };

const within = (values, ranges) =>
  Object.entries(ranges).every(
    ([name, [least, most]]) => typeof values?.[name] === "number" && values[name] >= least && values[name] <= most,
  );

/** The contract of an ONNX file, checked as far as this page uses it. Throws UserError. */
export function readContract(bytes) {
  const text = contractText(bytes);
  if (text === null) throw new UserError("This model carries no voxport contract. Write it with: voxport export onnx");
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw damaged("its contract is not JSON");
  }
  if (data?.version !== 1) {
    throw new UserError(`The model's contract has version ${data?.version}; this page reads version 1.`);
  }
  if (data.input_kind !== "waveform") {
    throw new UserError(
      "This model takes features, not sound. Export it for the browser with: voxport export onnx … --input waveform",
    );
  }
  if (data.outputs !== undefined && !data.outputs.includes?.("scores")) {
    throw new UserError("This model gives embeddings, not speakers. Export it again with: --output both");
  }
  const whole = (value, least, most) => Number.isInteger(value) && value >= least && value <= most;
  const { labels, frontend, golden, rejection, speech = USUAL_RULE } = data;
  const { temperature = 1, temperature_by_length = [] } = data;
  const windowing = { ...USUAL_WINDOWING, ...data.windowing };
  const size = windowing.max_frames ?? data.max_frames; // of a window, in frames
  const sound =
    Array.isArray(labels) && labels.length > 0 && labels.every((label) => typeof label === "string") &&
    whole(frontend?.sample_rate, 1, 1 << 20) && whole(frontend.n_fft, 1, 1 << 14) &&
    whole(frontend.win_length, 1, frontend.n_fft) && whole(frontend.hop_length, 1, 1 << 20) &&
    whole(data.min_frames, 1, data.max_frames) && whole(data.max_frames, 1, 1 << 24) &&
    data.score_scale > 0 && golden?.tolerance >= 0 &&
    (rejection === null || Math.abs(rejection?.threshold) <= 1) &&
    within(windowing, WINDOWING_RANGES) && typeof windowing.speech_only === "boolean" &&
    whole(size, data.min_frames, data.max_frames) && (speech === null || within(speech, SPEECH_RANGES)) &&
    within({ temperature }, TEMPERATURE_RANGES) && Array.isArray(temperature_by_length) &&
    temperature_by_length.every(
      (point, i, points) =>
        within(point, POINT_RANGES) && (i === 0 || points[i - 1].seconds < point.seconds),
    );
  if (!sound) throw damaged("its contract does not hold together");
  return {
    ...data,
    speech,
    windowing,
    temperature,
    temperature_by_length,
    outputs: data.outputs ?? ["scores", "embedding"],
    windowSize: minSamples(frontend, size + 1) - 1,
    shortest: minSamples(frontend, data.min_frames),
    longest: minSamples(frontend, data.max_frames + 1) - 1,
    golden: { input: floats(golden.input), scores: floats(golden.scores), tolerance: golden.tolerance },
  };
}

/** The fewest samples that give so many frames. */
export function minSamples({ framing, win_length, hop_length, n_fft }, frames) {
  const half = Math.floor(n_fft / 2);
  switch (framing) {
    case "center_reflect":
      return Math.max(half + 1, (frames - 1) * hop_length + n_fft - 2 * half);
    case "mirror_edges":
      return frames * hop_length - Math.floor(hop_length / 2);
    case "pad_end":
      return frames === 1 ? 1 : win_length + (frames - 2) * hop_length + 1;
    case "snip_edges":
      return win_length + (frames - 1) * hop_length;
    default:
      throw damaged(`it names the unknown framing ${framing}`);
  }
}

/** An array of the contract: little-endian float32 in base64. */
function floats(array) {
  let raw;
  try {
    raw = atob(array.base64);
  } catch {
    throw damaged("its golden vector is not base64");
  }
  const bytes = Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: Math.floor(bytes.length / 4) }, (_, i) => view.getFloat32(4 * i, true));
}

/**
 * What scores of a sound of `length` seconds are divided by before the softmax: straight between two lengths of the
 * contract, over the logarithms of length and temperature; beyond the first and the last, theirs holds.
 */
export function temperatureFor({ temperature, temperature_by_length: points }, length) {
  if (points.length === 0) return temperature;
  const above = points.findIndex((point) => point.seconds >= length);
  if (above === 0) return points[0].temperature;
  if (above < 0) return points.at(-1).temperature;
  const [low, high] = [points[above - 1], points[above]];
  const share = Math.log(length / low.seconds) / Math.log(high.seconds / low.seconds);
  return low.temperature * (high.temperature / low.temperature) ** share;
}

export const seconds = (samples, contract) => `${(samples / contract.frontend.sample_rate).toFixed(2)} s`;

/** Throws UserError where there are fewer samples than the model takes; longer sounds are heard in windows. */
export function checkLength(samples, contract) {
  if (samples >= contract.shortest) return;
  const least = seconds(contract.shortest, contract);
  throw new UserError(`${seconds(samples, contract)} of sound is too short for this model, which takes ${least} or more.`);
}
