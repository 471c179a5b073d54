/** The page's side of worker.js: `load` a model file, `identify` a sound. */

import { checkLength, temperatureFor, UserError } from "./contract.js";
import { piecesOf, Pool } from "./windows.js";

export class Model {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #next = 0;
  contract = null;

  constructor() {
    this.#worker.onmessage = ({ data: { id, result, problem, expected } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (problem === undefined) resolve(result);
      else reject(expected ? new UserError(problem) : new Error(problem));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const problem = new UserError("ONNX Runtime did not start. Is the page served over http, and npm ci done?");
      for (const { reject } of this.#waiting.values()) reject(problem);
      this.#waiting.clear();
    };
  }

  /** Read, start and check the model in an ONNX file; returns its contract. */
  async load(file) {
    this.contract = null;
    const bytes = new Uint8Array(await file.arrayBuffer());
    this.contract = await this.#ask("load", bytes, [bytes.buffer]);
    return this.contract;
  }

  /**
   * Speakers of `samples` (mono, at the model's rate, of any length), best first, and whether the best is known. Where
   * nobody speaks `ranked` is empty, and `lacks` is a key of REASONS.
   */
  async identify(samples) {
    checkLength(samples.length, this.contract);
    const { labels, score_scale, rejection, frontend } = this.contract;
    const { pieces, lacks } = piecesOf(samples, this.contract);
    if (lacks !== null) return { ranked: [], known: false, lacks, windows: 0, milliseconds: 0 };
    const pool = new Pool();
    let milliseconds = 0;
    for (const piece of pieces) {
      const copy = piece.samples.slice(); // its memory goes to the worker
      const answer = await this.#ask("run", copy, [copy.buffer]);
      pool.add(answer, piece.weight);
      milliseconds += answer.milliseconds;
    }
    const scores = pool.scores();
    if (scores === null) throw new UserError("Voices in this sound cancel each other out. Cut it by speaker.");
    const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!Number.isFinite(most)) throw new UserError("The model's answer is not a number.");
    const temperature = temperatureFor(this.contract, samples.length / frontend.sample_rate);
    const shares = Array.from(scores, (score) => Math.exp((score - most) / temperature));
    const sum = shares.reduce((a, b) => a + b, 0);
    const ranked = labels
      .map((speaker, i) => ({ speaker, score: scores[i], probability: shares[i] / sum }))
      .sort((a, b) => b.score - a.score);
    const known = rejection === null ? null : ranked[0].score / score_scale >= rejection.threshold;
    return { ranked, known, lacks, windows: pool.windows, milliseconds };
  }

  #ask(task, argument, transfer = []) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, task, argument }, transfer);
    });
  }
}
