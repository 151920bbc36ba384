// float32 logits from hidden states and a head, both bf16 or both float32. Shapes: N rows, V vocabulary, H hidden size.
//
// Torch's own product of bf16 matrices on a CPU is rounded to bf16, where one ULP of a logit near 20 is an eighth of a nat;
// converting the head to float32 first costs twice the memory and half the speed. Here products of bf16 are exact and
// sums are float32. On Zen 4 its product of float32 matrices takes 1.4 times as long as this one with 256 rows, and 2.2
// times with 32: at V = 151,936 a workspace of logits has room for no more than 48.
#pragma once

#include <cstdint>

namespace ssdfast {

struct LinearJob {
  const uint16_t *hidden, *weight;  // [N, H], [V, H]; a float32 is two halves
  int64_t n, v, halves, stride_hidden, stride_weight;  // halves: 16-bit pieces of a row; strides in them too
  float* out;  // [N, V]
  int64_t stride_out;
  bool bf16;
};

// A way to multiply: the hidden states are repacked once, to packed_size(job) words; then `panels` computes the logits of
// panels [begin, end), each of `panel` vocabulary entries.
struct Product {
  int panel;
  int64_t (*packed_size)(const LinearJob& job);
  void (*pack_hidden)(const LinearJob& job, uint32_t* packed);
  void (*panels)(const LinearJob& job, const uint32_t* packed, int64_t begin, int64_t end);
};

namespace avx512 {
extern const Product PRODUCT;  // bf16 (with AVX512_BF16) and float32
}
namespace avx2 {
extern const Product PRODUCT;  // bf16 and float32
}
#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define SSDFAST_HAS_AMX
namespace amx {
extern const Product PRODUCT;  // bf16
}
#endif

}  // namespace ssdfast
