// Who is speaking? voxport_identify MODEL.onnx SOUND.wav [HOW_MANY]
//
// MODEL.onnx takes sound itself: voxport export onnx CHECKPOINT --input waveform -o MODEL.onnx
// SOUND.wav is 16-bit PCM at the model's rate. Prints one line for each speaker: probability, score, name; above them,
// or alone, one that says why it is nobody.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "model.hpp"
#include "wav.hpp"

namespace {

void identify(const std::string& path, const std::string& file, size_t most) {
  const voxport::Model model(path);
  const voxport::Contract& contract = model.contract();
  const voxport::Sound sound = voxport::read_wav(file);
  if (sound.rate != contract.sample_rate) {
    const std::string rate = std::to_string(contract.sample_rate);
    throw std::runtime_error(file + ": " + std::to_string(sound.rate) + " Hz, the model takes " + rate +
                             " Hz; resample it: ffmpeg -i IN -ar " + rate + " -c:a pcm_s16le OUT.wav");
  }
  const std::vector<float> scores = model.scores(sound.samples);
  if (contract.speech) {
    if (const auto lack = voxport::lack_of_speech(sound.samples, contract.sample_rate, *contract.speech)) {
      std::printf("nobody: the sound holds no speech: %s\n", lack->c_str());
      return;
    }
  }
  const double seconds = static_cast<double>(sound.samples.size()) / static_cast<double>(sound.rate);
  const std::vector<double> shares = voxport::probabilities(scores, voxport::temperature_for(contract, seconds));
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  if (contract.threshold && scores[order[0]] / contract.score_scale < *contract.threshold) {
    std::printf("nobody whom the model knows; most alike:\n");
  }
  for (size_t place = 0; place < std::min(most, order.size()); ++place) {
    const size_t i = order[place];
    std::printf("%8.6f\t%10.6f\t%s\n", shares[i], scores[i], contract.labels[i].c_str());
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 3 || count > 4) {
    std::fprintf(stderr, "usage: %s MODEL.onnx SOUND.wav [HOW_MANY]\n", words[0]);
    return 2;
  }
  try {
    const int most = count == 4 ? std::atoi(words[3]) : 5;
    identify(words[1], words[2], static_cast<size_t>(std::max(1, most)));
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "error: %s\n", problem.what());
    return 1;
  }
  return 0;
}
