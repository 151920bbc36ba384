// float32 logits from bf16 hidden states and a bf16 head. Shapes: N rows, V vocabulary, H hidden size.
//
// Torch's own product of bf16 matrices on a CPU is rounded to bf16, where logits near 20 lie an eighth of a nat apart;
// converting the head to float32 first costs twice the memory and half the speed. Here products of bf16 are exact and
// sums are float32.
#pragma once

#include <cstdint>

namespace ssdfast {

struct LinearJob {
  const uint16_t *hidden, *weight;          // bf16 [N, H], [V, H]
  int64_t n, v, h, stride_hidden, stride_weight;
  float* out;                               // [N, V]
  int64_t stride_out;
};

constexpr int PANEL = 48;  // vocabulary entries that a thread takes at a time

namespace avx512_bf16 {
// Repacks the hidden states for `panels`: `packed` has packed_size(job) elements.
int64_t packed_size(const LinearJob& job);
void pack_hidden(const LinearJob& job, uint32_t* packed);
// The logits of panels [begin, end).
void panels(const LinearJob& job, const uint32_t* packed, int64_t begin, int64_t end);
}  // namespace avx512_bf16

}  // namespace ssdfast
