// The rows of a chunk of logits, and what each instruction set makes of them. Shapes: B rows, V vocabulary, K label slots.
#pragma once

#include <cstdint>

namespace ssdfast {

// oneDNN's product of bf16 reads a row up to a multiple of 32 and multiplies the excess by zero: it must not hold NaN.
constexpr int64_t ZEROS_BEHIND_ROW = 32;

struct SoftLabelJob {
  float* logits;  // [B, V]; overwritten by the gradients if there are weights
  int64_t v, stride, k;
  const int64_t* ids;   // [B, K]
  const float* probs;   // [B, K]; where 0, the slot is empty
  const float* weight;  // [B] or null
  float* loss;          // [B]
  double z_loss;
  float scale, softcap;  // logit = softcap * tanh(scale * product / softcap); softcap 0: none
  bool bf16;             // write a row's gradients as bf16 from its beginning, and ZEROS_BEHIND_ROW after them
};

namespace avx512 { void soft_label_rows(const SoftLabelJob& job, int64_t begin, int64_t end); }
namespace avx2 { void soft_label_rows(const SoftLabelJob& job, int64_t begin, int64_t end); }
namespace portable { void soft_label_rows(const SoftLabelJob& job, int64_t begin, int64_t end); }

}  // namespace ssdfast
