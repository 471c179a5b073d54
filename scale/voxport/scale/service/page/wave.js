// Sound as numbers: peaks to draw, a piece cut out, and a WAV file of samples. No page and no service are known here.

/** The lowest and the highest of each of `count` stretches of samples: [low, high, low, high, …]. */
export function peaks(samples, count) {
  const found = new Float32Array(2 * count);
  const step = samples.length / count;
  for (let i = 0; i < count; i++) {
    let low = 0, high = 0;
    const end = Math.max(Math.floor((i + 1) * step), Math.floor(i * step) + 1);
    for (let j = Math.floor(i * step); j < end && j < samples.length; j++) {
      if (samples[j] < low) low = samples[j];
      if (samples[j] > high) high = samples[j];
    }
    found[2 * i] = low;
    found[2 * i + 1] = high;
  }
  return found;
}

/** The channels of an AudioBuffer from `start` to `end` seconds. */
export function cut(buffer, start, end) {
  const from = Math.max(0, Math.round(start * buffer.sampleRate));
  const to = Math.min(buffer.length, Math.round(end * buffer.sampleRate));
  const channels = [];
  for (let i = 0; i < buffer.numberOfChannels; i++) channels.push(buffer.getChannelData(i).subarray(from, to));
  return channels;
}

/** A WAV file of 16 bits, as bytes. */
export function encodeWav(channels, rate) {
  const count = channels.length, frames = channels[0].length;
  const view = new DataView(new ArrayBuffer(44 + 2 * count * frames));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * count * frames, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, count, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2 * count, true);
  view.setUint16(32, 2 * count, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * count * frames, true);
  for (let i = 0, at = 44; i < frames; i++) {
    for (const samples of channels) {
      view.setInt16(at, Math.round(Math.min(1, Math.max(-1, samples[i])) * 32767), true);
      at += 2;
    }
  }
  return view.buffer;
}

/** Seconds as 1:02.3. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}
