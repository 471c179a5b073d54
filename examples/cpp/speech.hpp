// Does somebody speak? The rule of a contract's `speech`, as docs/runtime.md states it and Python follows it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace voxport {

// Levels are in dB relative to full scale, the others in dB, seconds, and shares of all frames. These values are
// those of contracts that state no rule.
struct SpeechRule {
  double floor_db = -90, range_db = 20, min_seconds = 0.4, min_share = 0.4;
  double swing_db = 2.5, variety_db = 1.2, flatness_db = -55;
};

namespace speech_detail {

constexpr double kPi = 3.14159265358979323846;
constexpr size_t kLooks = 12;              // active frames whose spectrum is looked at
constexpr size_t kFirstTone = 4, kTones = 68;  // bins of 50 Hz, those of frames of 20 ms: 200 to 3,400 Hz
constexpr double kQuietest = 1e-12;        // a power of -120 dB; digital silence has no logarithm

inline double decibels(double power) { return 10 * std::log10(power); }

inline double deviation(const std::vector<double>& values) {
  double mean = 0, square = 0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  for (const double value : values) square += (value - mean) * (value - mean) / static_cast<double>(values.size());
  return std::sqrt(square);
}

// Spectral flatness of one frame in dB: the geometric over the arithmetic mean of its power.
inline double flatness(const float* frame, size_t size, double level) {
  const size_t last = std::min(kTones, size / 2 + 1);
  double logarithms = 0, powers = 0;
  for (size_t bin = kFirstTone; bin < last; ++bin) {
    double real = 0, imaginary = 0;
    for (size_t i = 0; i < size; ++i) {
      const double turn = 2 * kPi / static_cast<double>(size);
      const double angle = turn * static_cast<double>(bin * i % size);
      const double value = frame[i] * (0.5 - 0.5 * std::cos(turn * static_cast<double>(i)));
      real += value * std::cos(angle);
      imaginary += value * std::sin(angle);
    }
    // What is 90 dB below the sound says no more.
    const double power = real * real + imaginary * imaginary + 1e-9 * level * static_cast<double>(size);
    logarithms += std::log(power);
    powers += power;
  }
  const auto width = static_cast<double>(last - kFirstTone);
  return 10 / std::log(10.0) * (logarithms / width - std::log(powers / width));
}

}  // namespace speech_detail

// Nothing where `samples` (mono, full scale [-1, 1]) at `rate` Hz hold speech, else what is wrong with the sound.
inline std::optional<std::string> lack_of_speech(std::vector<float> samples, int64_t rate, const SpeechRule& rule) {
  using namespace speech_detail;
  // 20 ms; nearbyint rounds halves to even, as Python does.
  const auto size = static_cast<size_t>(std::max(1.0, std::nearbyint(static_cast<double>(rate) * 0.02)));
  const size_t count = samples.size() / size;
  if (count == 0) return "there is too little of it";
  double offset = 0;  // a DC offset is no sound
  for (const float value : samples) offset += value / static_cast<double>(samples.size());
  for (float& value : samples) value -= static_cast<float>(offset);
  std::vector<double> powers(count);
  double sum = 0, roots = 0;
  for (size_t frame = 0; frame < count; ++frame) {
    double power = 0;  // every other sample tells the level as well
    for (size_t i = 0; i < size; i += 2) power += std::pow(static_cast<double>(samples[frame * size + i]), 2);
    powers[frame] = power / static_cast<double>((size + 1) / 2);
    sum += powers[frame];
    roots += std::sqrt(powers[frame]);
  }
  const double level = roots > 0 ? std::pow(sum / roots, 2) : 0;
  if (level <= 0 || decibels(std::max(level, kQuietest)) < rule.floor_db) return "it is silent";
  std::vector<size_t> active;
  std::vector<double> levels;
  for (size_t frame = 0; frame < count; ++frame) {
    if (powers[frame] < level * std::pow(10, -rule.range_db / 10)) continue;
    active.push_back(frame);
    levels.push_back(decibels(powers[frame]));
  }
  const double seconds = static_cast<double>(samples.size()) / static_cast<double>(rate);
  if (static_cast<double>(active.size()) * 0.02 < std::min(rule.min_seconds, rule.min_share * seconds)) {
    return "there is too little of it";
  }
  if (deviation(levels) < rule.swing_db) return "its level hardly moves, like that of noise, a hum or a tone";
  std::vector<double> found;
  const size_t looks = std::min(active.size(), kLooks);
  for (size_t i = 0; i < looks; ++i) {
    found.push_back(flatness(&samples[active[i * active.size() / looks] * size], size, level));
  }
  if (deviation(found) < rule.variety_db) return "its spectrum hardly moves, like that of noise";
  std::sort(found.begin(), found.end());
  if (found[found.size() / 2] < rule.flatness_db) return "it is made of pure tones";
  return std::nullopt;
}

}  // namespace voxport
