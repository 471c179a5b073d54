import { clock, cut, encodeWav, peaks } from "/page/wave.js";

const $ = (id) => document.getElementById(id);
const HUES = [212, 28, 150, 330, 265, 95, 5, 185];
const state = { sound: null, buffer: null, turns: [], colors: new Map(), context: null, playing: null, recorder: null, asked: 0, busy: 0 };

// --- the service ---------------------------------------------------------------------------------------

/** What the service answers; what is wrong comes as an Error in its own words. */
async function ask(method, path, body) {
  const key = $("key").value.trim();
  let reply;
  try {
    reply = await fetch(path, { method, body, headers: key ? { Authorization: `Bearer ${key}` } : {} });
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (reply.ok) return reply.status === 204 ? null : reply.json();
  let problem = null;
  try { problem = await reply.json(); } catch { /* the proxy's own text */ }
  if (reply.status === 401) $("access").open = true;
  throw new Error(problem?.title ? `${problem.title}: ${problem.detail}` : `The service answers with status ${reply.status}.`);
}

const among = () => document.querySelector("input[name=among]:checked").value;

/** Do something that may fail, and say so. */
async function attempt(doing, work) {
  $("error").textContent = "";
  $("status").textContent = doing;
  state.busy += 1;
  document.body.setAttribute("aria-busy", "true");
  try {
    await work();
    $("status").textContent = "";
  } catch (problem) {
    $("status").textContent = "";
    $("error").textContent = problem.message;
  } finally {
    state.busy -= 1;
    if (!state.busy) document.body.removeAttribute("aria-busy");
  }
}

// --- a sound -------------------------------------------------------------------------------------------

function audio() {
  state.context ??= new AudioContext();
  return state.context;
}

async function take(bytes, name) {
  stop();
  state.sound = bytes;
  state.buffer = null;
  state.turns = [];
  $("result").hidden = true; // what is there is of another sound
  $("result-title").textContent = `Who speaks in ${name}`;
  state.asked += 1; // an answer to another sound that is still on its way is not shown any more
  let buffer = null;
  try {
    buffer = await audio().decodeAudioData(bytes.slice(0));
  } catch { /* the service may know the format all the same; there is no waveform then */ }
  if (state.sound !== bytes) return;
  state.buffer = buffer;
  await attempt(`Listening to ${name} …`, answer);
  if (state.sound === bytes && $("result").hidden) state.sound = state.buffer = null; // it was refused
}

async function answer() {
  if (!state.sound) throw new Error("Choose or record a sound first.");
  const whom = among(), mine = ++state.asked;
  let whole, timeline;
  try {
    [whole, timeline] = await Promise.all([
      ask("POST", `/v1/identify?among=${whom}&channel=mix`, state.sound),
      ask("POST", `/v1/timeline?among=${whom}`, state.sound),
    ]);
  } catch (problem) {
    if (mine === state.asked) throw problem;
  }
  if (mine !== state.asked) return; // something else was asked meanwhile
  state.turns = timeline.segments;
  showWhole(whole);
  showTurns(whole.duration_s);
  $("result").hidden = false;
  draw(whole.duration_s);
  $("result").focus({ preventScroll: true });
}

function showWhole(whole) {
  const best = whole.ranked[0];
  const share = best && (best.probability ?? best.cosine);
  const sure = best && (best.probability === undefined ? `cosine ${best.cosine.toFixed(2)}` : `${(100 * share).toFixed(0)}\u00a0%`);
  $("whole").textContent = !best
    ? "Nobody speaks in it."
    : whole.known === false
      ? `A stranger; most like ${best.speaker} (${sure}).`
      : `In all: ${best.speaker} (${sure}).`;
  $("notes").replaceChildren(...whole.notes.map((note) => element("li", `Note: ${note.text}`)));
}

const nameOf = (turn) => turn.speaker ?? "a stranger";

function colorOf(name) {
  if (!state.colors.has(name)) state.colors.set(name, `hsl(${HUES[state.colors.size % HUES.length]} 65% 45%)`);
  return state.colors.get(name);
}

function showTurns(seconds) {
  const length = Math.max(seconds, 0.001);
  $("turns").replaceChildren(...state.turns.map((turn, i) => {
    const button = element("button", nameOf(turn));
    button.type = "button";
    button.className = "turn";
    button.tabIndex = i ? -1 : 0;
    button.style.left = `${100 * turn.start_s / length}%`;
    button.style.width = `${100 * (turn.end_s - turn.start_s) / length}%`;
    button.style.setProperty("--turn", colorOf(nameOf(turn)));
    button.setAttribute("aria-label", `${nameOf(turn)}, ${clock(turn.start_s)} to ${clock(turn.end_s)}: play`);
    button.addEventListener("click", () => play(turn));
    button.addEventListener("keydown", (event) => move(event, i));
    return button;
  }));
  $("rows").replaceChildren(...state.turns.map((turn, i) => {
    const row = document.createElement("tr");
    const who = element("td", nameOf(turn));
    const dot = element("span", "");
    dot.className = "dot";
    dot.style.setProperty("--turn", colorOf(nameOf(turn)));
    who.prepend(dot);
    const cells = element("td", "");
    cells.append(
      action("Play", `Play ${nameOf(turn)} at ${clock(turn.start_s)}`, () => play(turn)),
      action("Enroll …", `Enroll the voice at ${clock(turn.start_s)}`, () => choosePart(i)),
    );
    row.append(element("td", clock(turn.start_s)), element("td", clock(turn.end_s)), who,
      element("td", `${(100 * turn.probability).toFixed(0)} %`), cells);
    return row;
  }));
  const options = state.buffer ? state.turns.map((turn, i) => {
    const option = element("option", `${nameOf(turn)}, ${clock(turn.start_s)} to ${clock(turn.end_s)}`);
    option.value = String(i);
    return option;
  }) : [];
  $("part").replaceChildren(element("option", "the whole sound"), ...options);
  $("part").options[0].value = "";
  $("scale").textContent = `0 to ${clock(seconds)} min`;
}

function move(event, i) {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -i, End: state.turns.length - 1 - i }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const buttons = [...$("turns").children];
  const next = buttons[Math.min(buttons.length - 1, Math.max(0, i + step))];
  buttons.forEach((each) => { each.tabIndex = each === next ? 0 : -1; });
  next.focus();
}

function choosePart(i) {
  $("part").value = String(i);
  $("name").focus();
}

function element(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function action(text, label, work) {
  const button = element("button", text);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", work);
  return button;
}

function draw(seconds) {
  const canvas = $("wave"), width = Math.round(canvas.clientWidth * devicePixelRatio), height = Math.round(canvas.clientHeight * devicePixelRatio);
  canvas.width = width;
  canvas.height = height;
  if (!state.buffer || !width) return;
  const pen = canvas.getContext("2d");
  const points = peaks(state.buffer.getChannelData(0), width);
  const most = points.reduce((high, value) => Math.max(high, Math.abs(value)), 1e-6);
  const plain = getComputedStyle(document.documentElement).getPropertyValue("--wave");
  for (let x = 0; x < width; x++) {
    const at = seconds * x / width;
    const turn = state.turns.find((each) => each.start_s <= at && at < each.end_s);
    pen.fillStyle = turn ? colorOf(nameOf(turn)) : plain;
    const top = height / 2 * (1 - points[2 * x + 1] / most), bottom = height / 2 * (1 - points[2 * x] / most);
    pen.fillRect(x, top, 1, Math.max(1, bottom - top));
  }
}

// --- playing and recording -----------------------------------------------------------------------------

async function play(turn) {
  stop();
  if (!state.buffer) { $("error").textContent = "This browser cannot play the format of the sound."; return; }
  await audio().resume();
  const source = audio().createBufferSource();
  source.buffer = state.buffer;
  source.connect(audio().destination);
  source.start(0, turn.start_s, turn.end_s - turn.start_s);
  const began = audio().currentTime, head = $("head");
  const tick = () => {
    const at = turn.start_s + audio().currentTime - began;
    head.style.left = `${100 * Math.min(1, at / state.buffer.duration)}%`;
    state.playing.frame = requestAnimationFrame(tick);
  };
  source.onended = stop;
  state.playing = { source, frame: 0 };
  head.hidden = false;
  $("stop").disabled = false;
  tick();
}

function stop() {
  if (!state.playing) return;
  const { source, frame } = state.playing;
  state.playing = null;
  source.onended = null;
  source.stop();
  cancelAnimationFrame(frame);
  $("head").hidden = true;
  $("stop").disabled = true;
}

async function record() {
  if (state.recorder) { state.recorder.stop(); return; }
  if (!navigator.mediaDevices) throw new Error("This browser gives the microphone only to pages of this machine, or over https.");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  } catch (problem) {
    throw new Error(`The microphone cannot be used (${problem.name}).`);
  }
  const pieces = [], recorder = new MediaRecorder(stream), began = Date.now();
  const timer = setInterval(() => { $("elapsed").textContent = clock((Date.now() - began) / 1000); }, 100);
  recorder.ondataavailable = (event) => pieces.push(event.data);
  recorder.onstop = async () => {
    clearInterval(timer);
    stream.getTracks().forEach((track) => track.stop());
    state.recorder = null;
    $("record").textContent = "Record from the microphone";
    $("record").setAttribute("aria-pressed", "false");
    $("elapsed").textContent = "";
    await attempt("Preparing the recording …", async () => {
      // Browsers record in formats of their own: what goes to the service is WAV.
      const buffer = await audio().decodeAudioData(await new Blob(pieces).arrayBuffer());
      await take(encodeWav(cut(buffer, 0, buffer.duration), buffer.sampleRate), "the recording");
    });
  };
  state.recorder = recorder;
  $("record").textContent = "Stop recording";
  $("record").setAttribute("aria-pressed", "true");
  $("status").textContent = "Recording. Press the button again to stop.";
  recorder.start();
}

// --- voices --------------------------------------------------------------------------------------------

async function showVoices() {
  const { voices } = await ask("GET", "/v1/voices");
  $("nobody").hidden = voices.length > 0;
  $("voices").replaceChildren(...voices.map(({ speaker, utterances }) => {
    const item = element("li", "");
    item.append(
      element("span", `${speaker} (${utterances === 1 ? "1 utterance" : `${utterances} utterances`})`),
      action("Remove", `Remove ${speaker}`, () => remove(speaker)),
    );
    return item;
  }));
}

async function remove(speaker) {
  if (!confirm(`Forget ${speaker}, and everything that is kept of this voice?`)) return;
  await attempt(`Removing ${speaker} …`, async () => {
    await ask("DELETE", `/v1/voices/${encodeURIComponent(speaker)}`);
    await showVoices();
  });
  $("people-title").scrollIntoView({ block: "nearest" });
  $("name").focus({ preventScroll: true });
}

async function enroll(event) {
  event.preventDefault();
  const name = $("name").value.trim(), part = $("part").value;
  await attempt(`Enrolling ${name} …`, async () => {
    if (!state.sound) throw new Error("Choose or record a sound first.");
    let body = state.sound;
    if (part !== "") {
      const turn = state.turns[Number(part)];
      body = encodeWav(cut(state.buffer, turn.start_s, turn.end_s), state.buffer.sampleRate);
    }
    await ask("PUT", `/v1/voices/${encodeURIComponent(name)}?channel=mix`, body);
    $("name").value = "";
    await showVoices();
  });
  if (!$("error").textContent) $("status").textContent = `${name} is enrolled.`;
}

async function start() {
  const model = await ask("GET", "/v1/model");
  const has = (output) => model.outputs.includes(output);
  $("model").textContent = `Model ${model.recipe}: ${has("scores") ? `${model.speakers} speakers of its own` : "no speakers of its own"}, ${model.sample_rate / 1000} kHz.`;
  const [own, enrolled] = document.querySelectorAll("input[name=among]");
  own.disabled = !has("scores");
  enrolled.disabled = $("people").hidden = !has("embedding");
  if (own.disabled) enrolled.checked = true;
  if (has("embedding")) await showVoices();
}

// --- the page ------------------------------------------------------------------------------------------

$("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  const bytes = await file.arrayBuffer();
  event.target.value = ""; // else the same file, chosen again, would be no change
  await take(bytes, file.name);
});
$("drop").addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) await take(await file.arrayBuffer(), file.name);
});
$("record").addEventListener("click", () => attempt("", record).then(() => {
  if (state.recorder) $("status").textContent = "Recording. Press the button again to stop.";
}));
$("stop").addEventListener("click", stop);
$("enroll").addEventListener("submit", enroll);
$("key").addEventListener("change", () => attempt("", start));
document.querySelectorAll("input[name=among]").forEach((each) => each.addEventListener("change", () => {
  if (state.sound) attempt("Asking again …", answer);
}));
addEventListener("resize", () => { if (state.buffer && !$("result").hidden) draw(state.buffer.duration); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (state.buffer) draw(state.buffer.duration); });

attempt("", start).then(() => { document.body.dataset.ready = "yes"; });
