// A voxport model in C++: the ONNX file and the contract that it carries, run with ONNX Runtime.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "speech.hpp"

namespace voxport {

// The temperature of sounds of so many seconds.
struct LengthTemperature {
  double seconds = 0, temperature = 1;
};

// What a program must know of the contract; docs/contract.md has all of it.
struct Contract {
  std::vector<std::string> labels;  // of the scores, in order
  int64_t sample_rate = 0;          // Hz
  int64_t shortest = 0, longest = 0;  // samples, both allowed
  double score_scale = 0;             // a score is score_scale × cosine
  double temperature = 1;             // scores / this are what probabilities are the softmax of
  std::vector<LengthTemperature> temperature_by_length;  // rising in length; where there are any, they hold instead
  std::optional<double> threshold;    // the cosine below which the speaker is unknown
  std::optional<SpeechRule> speech = SpeechRule();  // which sounds are answered with a name; without one, all
  std::vector<float> golden_input, golden_scores;
  double golden_tolerance = 0;
};

// Throws std::runtime_error where the file is not a waveform-input model of this contract version, was made for another
// rate, or no longer gives the answer that was recorded when it was written, and Ort::Exception where ONNX Runtime fails.
class Model {
 public:
  explicit Model(const std::string& path, int threads = 1);

  const Contract& contract() const { return contract_; }

  // One score for each label. Takes mono samples in [-1, 1] at the contract's rate, and throws where they are too
  // few, too many, or not finite. Any number of threads may call this at once.
  //
  // The graph's other output, `embedding`, is a vector of unit length: compare two voices by their dot product.
  std::vector<float> scores(const std::vector<float>& samples) const;

 private:
  void check_rate(const std::string& graph_name) const;
  void check_golden() const;

  std::string path_;
  Ort::Env env_;
  mutable Ort::Session session_{nullptr};  // Run is safe from many threads, but not const
  Contract contract_;
};

// What scores of a sound of so many seconds are divided by. Between two lengths the temperature is straight over the
// logarithms of both; beyond the first and the last, theirs holds.
double temperature_for(const Contract& contract, double seconds);

// The softmax of all scores, at this temperature.
std::vector<double> probabilities(const std::vector<float>& scores, double temperature);

}  // namespace voxport
