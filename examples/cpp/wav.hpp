// 16-bit PCM WAV files → mono samples in [-1, 1].
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace voxport {

struct Sound {
  uint32_t rate = 0;  // Hz
  std::vector<float> samples;
};

// Channels are averaged. Throws std::runtime_error for anything else, and for files that are cut short.
inline Sound read_wav(const std::string& path) {
  const auto refuse = [&path](const std::string& why) { throw std::runtime_error(path + ": " + why); };
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse("cannot be read");
  const std::vector<uint8_t> data{std::istreambuf_iterator<char>(file), {}};
  const auto number = [&data](size_t at, int bytes) {  // little-endian
    uint32_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= static_cast<uint32_t>(data[at + i]) << (8 * i);
    return value;
  };
  const auto tagged = [&data](size_t at, const char* tag) { return std::memcmp(&data[at], tag, 4) == 0; };
  if (data.size() < 12 || !tagged(0, "RIFF") || !tagged(8, "WAVE")) refuse("is no WAV file");

  Sound sound;
  uint32_t channels = 0;
  for (size_t at = 12; at + 8 <= data.size();) {
    const size_t size = number(at + 4, 4), body = at + 8;
    if (size > data.size() - body) refuse("is cut short");
    if (tagged(at, "fmt ") && size >= 16) {
      const uint32_t kind = number(body, 2);
      channels = number(body + 2, 2);
      sound.rate = number(body + 4, 4);
      // Kind 0xFFFE names the real kind further back.
      const bool pcm = kind == 1 || (kind == 0xFFFE && size >= 40 && number(body + 24, 2) == 1);
      if (!pcm || number(body + 14, 2) != 16 || channels < 1 || channels > 8) {
        refuse("is not 16-bit PCM of 1 to 8 channels; convert it: ffmpeg -i IN -c:a pcm_s16le OUT.wav");
      }
    } else if (tagged(at, "data")) {
      if (channels == 0) refuse("has sound before it says of which kind");
      for (size_t frame = 0; frame < size / (2 * channels); ++frame) {
        double sum = 0;
        for (uint32_t channel = 0; channel < channels; ++channel) {
          sum += static_cast<int16_t>(number(body + 2 * (frame * channels + channel), 2)) / 32768.0;
        }
        sound.samples.push_back(static_cast<float>(sum / channels));
      }
      return sound;
    }
    at = body + size + size % 2;  // chunks begin at even places
  }
  refuse("holds no sound");
  return sound;
}

}  // namespace voxport
