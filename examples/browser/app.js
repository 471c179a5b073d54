/** The page: what is dropped or chosen goes to the model, what comes back is drawn. */

import { seconds, UserError } from "./contract.js";
import { Model } from "./model.js";
import { decode } from "./sound.js";
import { REASONS } from "./speech.js";

const MOST = 5; // speakers that are shown
const at = (id) => document.getElementById(id);
const model = new Model();
let address = null; // of the sound that the player plays
let latest = 0; // only the newest of several requests may draw its answer

/** Run `work`, saying what is done meanwhile, and what went wrong, in words. */
async function doing(words, work) {
  const own = ++latest;
  at("status").textContent = words;
  at("error").textContent = "";
  document.body.dataset.state = "busy";
  try {
    await work(() => own === latest);
  } catch (problem) {
    if (own !== latest) return;
    if (!(problem instanceof UserError)) console.error(problem);
    at("error").textContent = problem instanceof UserError ? problem.message : `Something went wrong: ${problem.message}`;
  }
  if (own !== latest) return;
  at("status").textContent = "";
  document.body.dataset.state = at("error").textContent ? "error" : "ready";
}

const loadModel = (file) =>
  doing(`Loading ${file.name} …`, async () => {
    at("answer").hidden = at("facts").hidden = true;
    at("model-lead").textContent = "Choose or drop an ONNX model";
    allowSound(null);
    const contract = await model.load(file);
    at("model-lead").textContent = file.name;
    showFacts(contract);
    allowSound(contract);
  });

function allowSound(contract) {
  at("sound-file").disabled = contract === null;
  at("sound-lead").textContent = contract === null ? "Load a model first" : "Choose or drop a sound file";
  const range = contract === null ? "" : `, ${seconds(contract.shortest, contract)} or longer`;
  at("sound-hint").textContent = `WAV, FLAC, MP3 or Ogg${range}`;
}

function showFacts(contract) {
  const facts = [
    ["Recipe", contract.recipe],
    ["Speakers", contract.labels.length],
    ["Precision", contract.precision],
    ["Rate", `${contract.frontend.sample_rate} Hz`],
    ["Strangers", contract.rejection === null ? "not told apart" : `below cosine ${contract.rejection.threshold.toFixed(2)}`],
  ];
  at("facts").replaceChildren(
    ...facts.map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(element("dt", "", name), element("dd", "", value));
      return pair;
    }),
  );
  at("facts").hidden = false;
}

const identify = (file) =>
  doing(`Listening to ${file.name} …`, async (isLatest) => {
    at("answer").hidden = at("player").hidden = true;
    if (model.contract === null) throw new UserError("Load a model first.");
    allowSound(model.contract);
    const { samples, note } = await decode(file, model.contract.frontend.sample_rate);
    if (!isLatest()) return;
    showSound(file, samples);
    const answer = await model.identify(samples);
    if (isLatest()) showAnswer(answer, samples.length, note);
  });

function showSound(file, samples) {
  at("sound-lead").textContent = file.name;
  if (address !== null) URL.revokeObjectURL(address);
  at("audio").src = address = URL.createObjectURL(file);
  at("player").hidden = false;
  draw(at("wave"), samples);
}

/** A bar for each stretch of the sound, from its lowest to its highest sample. */
function draw(canvas, samples) {
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  const loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1e-4);
  const bars = Math.min(340, samples.length);
  for (let bar = 0; bar < bars; bar++) {
    let low = 0;
    let high = 0;
    const stop = Math.floor(((bar + 1) * samples.length) / bars);
    for (let i = Math.floor((bar * samples.length) / bars); i < stop; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    const scale = (height / 2 - 2) / loudest;
    pen.fillRect((bar * width) / bars, height / 2 - high * scale - 1, (width / bars) * 0.6, (high - low) * scale + 2);
  }
}

function showAnswer({ ranked, known, lacks, windows, milliseconds }, samples, note) {
  window.answer = { ranked, known, lacks, windows }; // for scripts that drive this page
  const { contract } = model;
  const heard = [`${seconds(samples, contract)} of sound`];
  if (windows > 1) heard.push(`heard in ${windows} windows`);
  at("ranked").replaceChildren(...ranked.slice(0, MOST).map(row));
  at("answer").classList.toggle("unknown", known === false);
  at("answer").hidden = false;
  if (lacks !== null) {
    at("best").replaceChildren("Nobody speaks", element("small", "", REASONS[lacks]));
    at("rest").textContent = [...heard, ...(note ? [note] : [])].join("; ");
    return;
  }
  const [best] = ranked;
  const cosine = (best.score / contract.score_scale).toFixed(3);
  at("best").replaceChildren(
    known === false ? "Nobody whom the model knows" : best.speaker,
    element("small", "", known === false ? `most like ${best.speaker}, cosine ${cosine}` : `cosine ${cosine}`),
  );
  heard.push(`in ${Math.round(milliseconds)} ms`);
  const others = ranked.length - Math.min(MOST, ranked.length);
  const more = others > 0 ? [`${others} more speakers are less likely`] : [];
  at("rest").textContent = [heard.join(" "), ...(note ? [note] : []), ...more].join("; ");
}

function row({ speaker, probability }) {
  const item = document.createElement("li");
  const percent = `${(100 * probability).toFixed(1)} %`;
  const track = element("span", "track", "");
  const fill = element("span", "fill", "");
  track.ariaHidden = "true"; // it says again what the number says
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  item.append(element("span", "name", speaker), element("span", "share", percent), track);
  return item;
}

function element(tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text; // never as HTML: names come from files
  return made;
}

for (const [name, take] of [["model", loadModel], ["sound", identify]]) {
  const input = at(`${name}-file`);
  input.addEventListener("change", () => {
    if (input.files.length > 0) take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
}

// A file may be dropped anywhere: its name says what it is.
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.querySelectorAll(".drop").forEach((zone) => zone.classList.toggle("over", kind === "dragover"));
    const file = kind === "drop" ? event.dataTransfer.files[0] : undefined;
    if (file !== undefined) (file.name.toLowerCase().endsWith(".onnx") ? loadModel : identify)(file);
  });
}

// index.html?model=ADDRESS begins with that model.
const wanted = new URLSearchParams(location.search).get("model");
document.body.dataset.state = "ready";
if (wanted !== null) {
  doing(`Fetching ${wanted} …`, async () => {
    const reply = await fetch(wanted).catch(() => null);
    if (!reply?.ok) throw new UserError(`${wanted} cannot be fetched.`);
    await loadModel(new File([await reply.blob()], wanted.split("/").pop()));
  });
}
