/** A sound file → mono samples at the model's rate. The browser decodes and resamples. */

import { UserError } from "./contract.js";

const MAX_BYTES = 200 << 20; // it is decoded whole, in memory

const CANCELLED = 0.25; // the average of channels has less than this share of their power, -6 dB: they cancel

/** {samples, note}: Float32Array in [-1, 1] at `rate` Hz, the channels' average; `note` says where it is one of them. */
export async function decode(file, rate) {
  if (file.size === 0) throw new UserError(`${file.name} is empty.`);
  if (file.size > MAX_BYTES) throw new UserError(`${file.name} is larger than 200 MB. Give a shorter piece of it.`);
  // An offline context decodes to its own rate; that it renders nothing does not matter.
  const context = new OfflineAudioContext(1, 1, rate);
  let decoded;
  try {
    decoded = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new UserError(
      `${file.name} is not a sound that this browser can read. WAV, FLAC, MP3 and Ogg work in all of them.`,
    );
  }
  const mono = new Float32Array(decoded.length);
  const powers = [];
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    const samples = decoded.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / decoded.numberOfChannels;
    powers.push(power(samples));
  }
  const mean = powers.reduce((a, b) => a + b, 0) / powers.length;
  if (powers.length === 1 || power(mono) >= CANCELLED * mean) return { samples: mono, note: "" };
  const loudest = powers.indexOf(Math.max(...powers));
  const note = `its channels cancel each other, and channel ${loudest + 1} alone is heard`;
  return { samples: decoded.getChannelData(loudest).slice(), note };
}

const power = (samples) => samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
