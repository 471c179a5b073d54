/** A sound file → mono samples at the model's rate. The browser decodes and resamples. */

import { UserError } from "./contract.js";

const MAX_BYTES = 200 << 20; // it is decoded whole, in memory

/** Float32Array of samples in [-1, 1] at `rate` Hz; channels are averaged. */
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
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    const samples = decoded.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / decoded.numberOfChannels;
  }
  return mono;
}
