#include "model.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace voxport {
namespace {

using nlohmann::json;

// The fewest samples that give so many frames, for each way of framing that a contract may name.
int64_t min_samples(const json& frontend, int64_t frames) {
  const std::string framing = frontend.at("framing");
  const int64_t window = frontend.at("win_length"), hop = frontend.at("hop_length"), n_fft = frontend.at("n_fft");
  if (framing == "center_reflect") {
    const int64_t half = n_fft / 2;
    return std::max(half + 1, (frames - 1) * hop + n_fft - 2 * half);
  }
  if (framing == "mirror_edges") return frames * hop - hop / 2;
  if (framing == "pad_end") return frames == 1 ? 1 : window + (frames - 2) * hop + 1;
  if (framing == "snip_edges") return window + (frames - 1) * hop;
  throw std::runtime_error("the contract names a framing that this program does not know: " + framing);
}

// An array of the contract: little-endian float32 in base64.
std::vector<float> floats(const json& array) {
  static const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  int held = 0;
  for (const char letter : array.at("base64").get_ref<const std::string&>()) {
    if (letter == '=') break;
    const size_t value = alphabet.find(letter);
    if (value == std::string::npos) throw std::runtime_error("the golden vector is not base64");
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xFFFFFF;
    if ((held += 6) >= 8) bytes.push_back(static_cast<uint8_t>(bits >> (held -= 8)));
  }
  std::vector<float> values(bytes.size() / sizeof(float));
  for (size_t i = 0; i < values.size(); ++i) {  // by shifts, so that the machine's byte order does not matter
    const uint8_t* b = &bytes[i * 4];
    const uint32_t word = b[0] | b[1] << 8 | b[2] << 16 | static_cast<uint32_t>(b[3]) << 24;
    std::memcpy(&values[i], &word, sizeof word);
  }
  return values;
}

// A rule that is null answers every sound.
std::optional<SpeechRule> speech_rule(const json& rule) {
  if (rule.is_null()) return std::nullopt;
  SpeechRule found;
  found.floor_db = rule.at("floor_db");
  found.range_db = rule.at("range_db");
  found.min_seconds = rule.at("min_seconds");
  found.min_share = rule.at("min_share");
  found.swing_db = rule.at("swing_db");
  found.variety_db = rule.at("variety_db");
  found.flatness_db = rule.at("flatness_db");
  return found;
}

std::vector<LengthTemperature> length_temperatures(const json& points) {
  std::vector<LengthTemperature> found;
  for (const json& point : points) {
    const LengthTemperature next{point.at("seconds"), point.at("temperature")};
    if (!(next.temperature > 0) || !(next.seconds > (found.empty() ? 0 : found.back().seconds))) {
      throw std::runtime_error("the contract's temperatures by length are not positive, or do not rise in length");
    }
    found.push_back(next);
  }
  return found;
}

Contract parse(const std::string& text) {
  const json data = json::parse(text);
  if (data.at("version") != 1) throw std::runtime_error("contract version " + data.at("version").dump() + ", not 1");
  if (data.at("input_kind") != "waveform") {
    throw std::runtime_error("the model takes features; export it with: voxport export onnx … --input waveform");
  }
  if (data.contains("outputs") && data["outputs"].front() != "scores") {
    throw std::runtime_error("the model gives embeddings, not speakers; export it again with --output both");
  }
  const json& frontend = data.at("frontend");
  Contract contract;
  contract.labels = data.at("labels").get<std::vector<std::string>>();
  contract.sample_rate = frontend.at("sample_rate");
  contract.shortest = min_samples(frontend, data.at("min_frames"));
  contract.longest = min_samples(frontend, data.at("max_frames").get<int64_t>() + 1) - 1;
  contract.score_scale = data.at("score_scale");
  contract.temperature = data.value("temperature", 1.0);
  if (!(contract.temperature > 0)) throw std::runtime_error("the contract's temperature is not positive");
  if (data.contains("temperature_by_length")) {
    contract.temperature_by_length = length_temperatures(data["temperature_by_length"]);
  }
  if (const json& rejection = data.at("rejection"); !rejection.is_null()) contract.threshold = rejection.at("threshold");
  if (data.contains("speech")) contract.speech = speech_rule(data["speech"]);
  contract.golden_input = floats(data.at("golden").at("input"));
  contract.golden_scores = floats(data.at("golden").at("scores"));
  contract.golden_tolerance = data.at("golden").at("tolerance");
  return contract;
}

std::string seconds(int64_t samples, const Contract& contract) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f s", static_cast<double>(samples) / static_cast<double>(contract.sample_rate));
  return text;
}

// From 1.29 on ONNX Runtime for Linux reports its use: it writes a device identifier and events below ~/.cache and
// sends them. This variable, read where the environment is made, stops it; one that the user has set is left alone.
Ort::Env private_env() {
#ifdef _WIN32
  if (std::getenv("ORT_DISABLE_TELEMETRY") == nullptr) _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
  return Ort::Env(ORT_LOGGING_LEVEL_ERROR, "voxport");
}

}  // namespace

Model::Model(const std::string& path, int threads) : path_(path), env_(private_env()) {
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(threads);
  options.AddConfigEntry("session.intra_op.allow_spinning", "0");  // a waiting thread leaves the core to others
  options.DisableMemPattern();  // every length is a new shape, and a pattern would be kept for each
  session_ = Ort::Session(env_, std::filesystem::path(path).c_str(), options);
  Ort::AllocatorWithDefaultOptions allocator;
  const Ort::ModelMetadata metadata = session_.GetModelMetadata();
  const auto text = metadata.LookupCustomMetadataMapAllocated("voxport.contract", allocator);
  if (!text) throw std::runtime_error(path + ": has no voxport contract; write it with voxport export onnx");
  try {
    contract_ = parse(text.get());
  } catch (const std::exception& problem) {
    throw std::runtime_error(path + ": " + problem.what());
  }
  check_rate(metadata.GetGraphNameAllocated(allocator).get());
  check_golden();
}

// The golden vector is samples and cannot tell at which rate they were taken; the graph's name can:
// "16000 Hz, frontend 0123456789abcdef". Graphs of older files have other names.
void Model::check_rate(const std::string& graph_name) const {
  if (graph_name.find(" Hz, frontend ") == std::string::npos) return;
  const std::string rate = std::to_string(contract_.sample_rate) + " Hz";
  if (graph_name.compare(0, rate.size(), rate) == 0) return;
  throw std::runtime_error(path_ + ": the contract claims " + rate + ", the graph was made for " + graph_name +
                           "; export the model again");
}

std::vector<float> Model::scores(const std::vector<float>& samples) const {
  const auto count = static_cast<int64_t>(samples.size());
  if (count < contract_.shortest || count > contract_.longest) {
    const bool is_short = count < contract_.shortest;
    const char* const way_out = is_short ? "; give a longer recording"
                                         : "; cut it, or give it to voxport identify, which hears it in windows";
    throw std::runtime_error(seconds(count, contract_) + " is too " + (is_short ? "short" : "long") +
                             " for this model, which takes " + seconds(contract_.shortest, contract_) + " to " +
                             seconds(contract_.longest, contract_) + way_out);
  }
  if (!std::all_of(samples.begin(), samples.end(), [](float value) { return std::isfinite(value); })) {
    throw std::runtime_error("the sound holds NaN or infinite samples");
  }
  const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<int64_t, 2> shape{1, count};
  const std::array<int64_t, 1> rows{1};
  int64_t length = count;
  const std::array<Ort::Value, 2> inputs{
      // ONNX Runtime does not write to its inputs; its interface only does not say so.
      Ort::Value::CreateTensor<float>(memory, const_cast<float*>(samples.data()), samples.size(), shape.data(), 2),
      Ort::Value::CreateTensor<int64_t>(memory, &length, 1, rows.data(), 1)};
  const std::array<const char*, 2> input_names{"waveform", "lengths"};
  const char* const output_name = "scores";
  const auto outputs = session_.Run(Ort::RunOptions{nullptr}, input_names.data(), inputs.data(), 2, &output_name, 1);
  const float* data = outputs[0].GetTensorData<float>();
  return {data, data + outputs[0].GetTensorTypeAndShapeInfo().GetElementCount()};
}

// Does this file, on this machine, still give the answer that PyTorch gave?
void Model::check_golden() const {
  const std::vector<float> found = scores(contract_.golden_input);
  bool equal = found.size() == contract_.golden_scores.size() && found.size() == contract_.labels.size();
  for (size_t i = 0; equal && i < found.size(); ++i) {
    equal = std::abs(found[i] - contract_.golden_scores[i]) <= contract_.golden_tolerance;  // false for NaN too
  }
  if (!equal) throw std::runtime_error(path_ + ": the model no longer gives its recorded answer; export it again");
}

double temperature_for(const Contract& contract, double seconds) {
  const std::vector<LengthTemperature>& points = contract.temperature_by_length;
  if (points.empty()) return contract.temperature;
  const auto above = std::find_if(points.begin(), points.end(), [&](const auto& each) { return each.seconds >= seconds; });
  if (above == points.begin()) return points.front().temperature;
  if (above == points.end()) return points.back().temperature;
  const LengthTemperature &low = *(above - 1), &high = *above;
  const double share = std::log(seconds / low.seconds) / std::log(high.seconds / low.seconds);
  return low.temperature * std::pow(high.temperature / low.temperature, share);
}

std::vector<double> probabilities(const std::vector<float>& scores, double temperature) {
  const double most = *std::max_element(scores.begin(), scores.end());
  std::vector<double> shares;
  double sum = 0;
  for (const float score : scores) sum += shares.emplace_back(std::exp((score - most) / temperature));
  for (double& share : shares) share /= sum;
  return shares;
}

}  // namespace voxport
