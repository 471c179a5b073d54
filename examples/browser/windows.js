/**
 * A sound of any length as pieces that the model takes, by the rule of the contract's `windowing`, as docs/runtime.md
 * states it and Python follows it: pauses are cut out, what is left is cut into windows, and windows without speech
 * count for nothing.
 */

import { frameSize, lackOfSpeech } from "./speech.js";

const ATTACK = 0.4; // dB that the running level follows a frame of 20 ms up by, at most
const RELEASE = 0.02; // and down, while the gate is open
const IDLE_RELEASE = 0.002; // and while it is closed

/** Of contracts that state no rule. */
export const USUAL_WINDOWING = {
  hop: 0.5, floor_db: -60, range_db: 30, margin_s: 0.1, speech_only: false, max_frames: null,
};

/** {pieces, lacks}: each piece with its weight; `lacks` is null where somebody speaks, else a key of REASONS. */
export function piecesOf(samples, contract) {
  const { frontend, longest, speech, windowing } = contract;
  const rate = frontend.sample_rate;
  const judged = (piece) => (speech === null ? null : lackOfSpeech(piece, rate, speech));
  if (samples.length <= longest) return { pieces: [{ samples, weight: 1 }], lacks: judged(samples) };
  // The sound holds speech where a stretch of the longest length does; the last one ends where the sound ends.
  let lacks = null;
  for (let start = 0; start < samples.length; start += longest) {
    const from = Math.min(start, samples.length - longest);
    lacks = judged(samples.subarray(from, from + longest));
    if (lacks === null) break;
  }
  const pieces = windowsOf(samples, contract);
  if (!windowing.speech_only || speech === null) return { pieces, lacks };
  const spoken = pieces.filter((piece) => judged(piece.samples) === null);
  if (spoken.length > 0) return { pieces: spoken, lacks };
  return { pieces: [{ samples: pieces[0].samples, weight: 1 }], lacks: lacks ?? judged(pieces[0].samples) };
}

function windowsOf(samples, { frontend, shortest, windowSize, windowing }) {
  const heard = withoutPauses(samples, frontend.sample_rate, windowing);
  if (heard.length < shortest) return [{ samples: samples.subarray(0, windowSize), weight: 1 }];
  const last = Math.max(0, heard.length - windowSize);
  const hop = Math.max(1, Math.floor(windowing.hop * windowSize + 1e-6));
  const starts = [];
  for (let start = 0; start < last; start += hop) starts.push(start);
  starts.push(last);
  let border = 0; // up to here windows have been counted for
  return starts.map((start, i) => {
    const next = i + 1 < starts.length ? Math.floor((start + starts[i + 1] + windowSize) / 2) : heard.length;
    const weight = next - border;
    border = next;
    return { samples: heard.subarray(start, start + windowSize), weight };
  });
}

/** The frames that pass the gate, and what lies within the margin of one, joined. */
function withoutPauses(samples, rate, { floor_db, range_db, margin_s }) {
  const size = frameSize(rate);
  const count = Math.floor(samples.length / size);
  const margin = Math.round(margin_s / 0.02);
  const kept = new Uint8Array(count);
  let running = floor_db;
  for (let frame = 0; frame < count; frame++) {
    let sum = 0;
    let squares = 0;
    for (let i = frame * size; i < (frame + 1) * size; i++) {
      sum += samples[i];
      squares += samples[i] ** 2;
    }
    const level = 10 * Math.log10(Math.max(squares / size - (sum / size) ** 2, 1e-12));
    const open = level >= floor_db && level >= running - range_db;
    if (open) kept.fill(1, Math.max(0, frame - margin), Math.min(count, frame + margin + 1));
    if (level > running) running = Math.min(level, running + ATTACK);
    else running = Math.max(level, running - (open ? RELEASE : IDLE_RELEASE), floor_db);
  }
  const rest = samples.subarray(count * size); // goes with the frame before it
  const restKept = count > 0 && kept[count - 1] === 1;
  const heard = new Float32Array(kept.reduce((a, b) => a + b, 0) * size + (restKept ? rest.length : 0));
  let at = 0;
  for (let frame = 0; frame < count; frame++) {
    if (kept[frame] === 0) continue;
    heard.set(samples.subarray(frame * size, (frame + 1) * size), at);
    at += size;
  }
  if (restKept) heard.set(rest, at);
  return heard;
}

/** Adds up the answers to pieces; `answer` is {scores, embedding}, the latter missing where the model gives none. */
export class Pool {
  #weight = 0;
  #scores = null;
  #embedding = null;
  windows = 0;

  add({ scores, embedding }, weight) {
    const plus = (sums, row) => Float64Array.from(row, (value, i) => (sums === null ? 0 : sums[i]) + weight * value);
    this.#scores = plus(this.#scores, scores);
    if (embedding !== undefined) this.#embedding = plus(this.#embedding, embedding);
    this.#weight += weight;
    this.windows++;
  }

  /** The scores of the averaged embedding; null where voices cancel each other out. */
  scores() {
    let length = 1; // of the mean embedding: scores are linear in it
    if (this.#embedding !== null && this.windows > 1) {
      length = Math.sqrt(this.#embedding.reduce((sum, value) => sum + (value / this.#weight) ** 2, 0));
      if (!(length > 1e-6)) return null;
    }
    return this.#scores.map((total) => total / this.#weight / length);
  }
}
