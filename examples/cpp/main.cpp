// Encodes the golden pack with query_encoder.onnx and compares each vector with Python's, to the last bit.
//
//   encode query_encoder.onnx PACK [THREADS]
//
// Encoder is the part to copy. It is safe for several threads.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

using Vector = std::vector<float>;

// Turns texts into unit vectors in the teacher's space.
class Encoder {
 public:
  // Loads a fused file. `threads` is how many processor threads one call may use.
  Encoder(const char* model, int threads) : environment_(ORT_LOGGING_LEVEL_ERROR, "edgeleaf") {
    environment_.DisableTelemetryEvents();
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    options.SetInterOpNumThreads(1);
    session_ = Ort::Session(environment_, model, options);
  }

  // Returns a vector per text. A text's vector does not depend on the others.
  std::vector<Vector> encode(const std::vector<std::string>& texts) {
    std::vector<Vector> vectors;
    if (texts.empty()) return vectors;
    std::vector<std::string> exact;
    std::vector<const char*> strings;
    for (const std::string& text : texts) exact.push_back(without_nulls(text));
    for (const std::string& text : exact) strings.push_back(text.c_str());
    const int64_t count = static_cast<int64_t>(texts.size());
    Ort::AllocatorWithDefaultOptions allocator;
    Ort::Value input = Ort::Value::CreateTensor(allocator, &count, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING);
    input.FillStringTensor(strings.data(), strings.size());

    const char* inputs[] = {"text"};
    const char* outputs[] = {"embedding"};
    std::vector<Ort::Value> found = session_.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 1);
    const int64_t dim = found[0].GetTensorTypeAndShapeInfo().GetShape()[1];
    const float* numbers = found[0].GetTensorData<float>();
    for (int64_t row = 0; row < count; row++) vectors.emplace_back(numbers + row * dim, numbers + (row + 1) * dim);
    return vectors;
  }

 private:
  // Strings pass through C and end at U+0000. The tokenizer drops it and U+FFFD alike.
  static std::string without_nulls(const std::string& text) {
    std::string exact;
    for (char byte : text) {
      if (byte) exact += byte;
      else exact += "\xEF\xBF\xBD";
    }
    return exact;
  }

  Ort::Env environment_;
  Ort::Session session_{nullptr};
};

static std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

static bool same(const Vector& one, const Vector& other) {
  return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size() * sizeof(float)) == 0;
}

// Reads texts.bin: a count, then each text's length and UTF-8; little endian.
static std::vector<std::string> read_texts(const std::string& path) {
  const std::string data = read(path);
  size_t at = 0;
  auto number = [&] {
    uint32_t value;
    std::memcpy(&value, data.data() + at, 4);
    at += 4;
    return value;
  };
  std::vector<std::string> texts(number());
  for (std::string& text : texts) {
    const uint32_t size = number();
    text = data.substr(at, size);
    at += size;
  }
  return texts;
}

int main(int count, char** arguments) try {
  // From 1.29 on, onnxruntime reports to its maker, unless this is set. Where the library is linked and not loaded later,
  // set it before the program starts, too: ORT_DISABLE_TELEMETRY=1 encode ...
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  if (count < 3) throw std::runtime_error("usage: encode query_encoder.onnx PACK [THREADS]");
  const std::string pack = arguments[2];
  const std::vector<std::string> texts = read_texts(pack + "/texts.bin");
  const std::string data = read(pack + "/vectors.bin");
  const size_t dim = data.size() / sizeof(float) / texts.size();
  std::vector<Vector> expected(texts.size(), Vector(dim));
  for (size_t i = 0; i < texts.size(); i++) std::memcpy(expected[i].data(), data.data() + i * dim * 4, dim * 4);
  Encoder encoder(arguments[1], count > 3 ? std::atoi(arguments[3]) : 1);

  std::vector<bool> equal(texts.size());
  std::vector<double> times;
  for (size_t i = 0; i < texts.size(); i++) {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<Vector> vectors = encoder.encode({texts[i]});
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    equal[i] = same(vectors[0], expected[i]);
  }
  const size_t batch = 32;
  for (size_t start = 0; start < texts.size(); start += batch) {
    const size_t end = std::min(start + batch, texts.size());
    const std::vector<Vector> vectors = encoder.encode({texts.begin() + start, texts.begin() + end});
    for (size_t i = start; i < end; i++) equal[i] = equal[i] && same(vectors[i - start], expected[i]);
  }

  const size_t good = std::count(equal.begin(), equal.end(), true);
  std::sort(times.begin(), times.end());
  std::printf("{\"texts\": %zu, \"equal\": %zu, \"p50_ms\": %.3f}\n", texts.size(), good, times[times.size() / 2]);
  return good == texts.size() ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "encode: %s\n", error.what());
  return 2;
}
