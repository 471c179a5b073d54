/** Does somebody speak? The rule of the contract's `speech`, as docs/runtime.md states it and Python follows it. */

const FRAME_SECONDS = 0.02;
const LOOKS = 12; // active frames whose spectrum is looked at
const TONES = [4, 68]; // bins of 50 Hz, those of frames of 20 ms: 200 to 3,400 Hz
const QUIETEST = 1e-12; // a power of -120 dB; digital silence has no logarithm

/** Of contracts that state no rule. */
export const USUAL_RULE = {
  floor_db: -90, range_db: 20, min_seconds: 0.4, min_share: 0.4, swing_db: 2.5, variety_db: 1.2, flatness_db: -55,
};

/** What is said of a sound without speech, by what it lacks. */
export const REASONS = {
  silence: "it is silent",
  brief: "there is too little of it",
  steady: "its level hardly moves, like that of noise, a hum or a tone",
  uniform: "its spectrum hardly moves, like that of noise",
  tonal: "it is made of pure tones",
};

/** Samples in a frame of 20 ms: rounded to even halves, as Python does. */
export function frameSize(rate) {
  const exact = rate * FRAME_SECONDS;
  const below = Math.floor(exact);
  const half = exact - below === 0.5;
  return Math.max(1, half ? below + (below % 2) : Math.round(exact));
}

/** null where `samples` (mono, full scale [-1, 1]) at `rate` Hz hold speech, else a key of REASONS. */
export function lackOfSpeech(samples, rate, rule) {
  const size = frameSize(rate);
  const count = Math.floor(samples.length / size);
  if (count === 0) return "brief";
  let offset = 0; // a DC offset is no sound
  for (let i = 0; i < samples.length; i += 4) offset += samples[i];
  offset /= Math.ceil(samples.length / 4);
  const powers = new Float64Array(count);
  let sum = 0;
  let roots = 0;
  for (let frame = 0; frame < count; frame++) {
    let power = 0; // every other sample tells the level as well, in half the time
    for (let i = 0; i < size; i += 2) power += (samples[frame * size + i] - offset) ** 2;
    powers[frame] = Math.max(power / Math.ceil(size / 2), QUIETEST);
    sum += powers[frame];
    roots += Math.sqrt(powers[frame]);
  }
  const level = (sum / roots) ** 2;
  if (decibels(level) < rule.floor_db) return "silence";
  const least = level * 10 ** (-rule.range_db / 10);
  const active = [];
  powers.forEach((power, frame) => power >= least && active.push(frame));
  const needed = Math.min(rule.min_seconds, (rule.min_share * samples.length) / rate);
  if (active.length * FRAME_SECONDS < needed) return "brief";
  if (spread(active.map((frame) => decibels(powers[frame]))) < rule.swing_db) return "steady";
  let looks = active;
  if (active.length > LOOKS) {
    looks = Array.from({ length: LOOKS }, (_, i) => active[Math.floor((i * active.length) / LOOKS)]);
  }
  const flatness = looks.map((frame) => flatnessOf(samples.subarray(frame * size, (frame + 1) * size), level));
  if (spread(flatness) < rule.variety_db) return "uniform";
  const middle = [...flatness].sort((a, b) => a - b)[Math.floor(flatness.length / 2)];
  return middle < rule.flatness_db ? "tonal" : null;
}

/** Spectral flatness of one frame in dB: the geometric over the arithmetic mean of its power. */
function flatnessOf(frame, level) {
  const size = frame.length;
  const windowed = Float64Array.from(frame, (value, i) => value * (0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size)));
  const last = Math.min(TONES[1], Math.floor(size / 2) + 1);
  let logarithms = 0;
  let powers = 0;
  for (let bin = TONES[0]; bin < last; bin++) {
    let real = 0;
    let imaginary = 0;
    for (let i = 0; i < size; i++) {
      const angle = (2 * Math.PI * ((bin * i) % size)) / size;
      real += windowed[i] * Math.cos(angle);
      imaginary += windowed[i] * Math.sin(angle);
    }
    const power = real ** 2 + imaginary ** 2 + 1e-9 * level * size; // what is 90 dB below the sound says no more
    logarithms += Math.log(power);
    powers += power;
  }
  const width = last - TONES[0];
  return (10 / Math.LN10) * (logarithms / width - Math.log(powers / width));
}

const decibels = (power) => (10 / Math.LN10) * Math.log(power);

/** The standard deviation. */
function spread(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length);
}
