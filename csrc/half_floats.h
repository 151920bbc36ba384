// The 16-bit logits, and the value of one logit of any type.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa.h"

namespace ssdfast::SSDFAST_ISA {

struct BF16 {
  uint16_t bits;
  static constexpr uint16_t MINUS_INFINITY = 0xFF80;
};
struct FP16 {
  uint16_t bits;
  static constexpr uint16_t MINUS_INFINITY = 0xFC00;
};

inline float value(const float* p) { return *p; }
inline float value(const BF16* p) {
  const uint32_t wide = static_cast<uint32_t>(p->bits) << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return x;
}
inline float value(const FP16* p) {
  const uint32_t h = p->bits, exponent = (h >> 10) & 31, fraction = h & 1023;
  float x;
  if (exponent == 0) {  // zero and the subnormals, in units of 2^-24
    x = static_cast<float>(fraction) * 5.9604644775390625e-8f;
  } else {
    const uint32_t wide = (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
    std::memcpy(&x, &wide, 4);
  }
  return h & 0x8000u ? -x : x;
}

}  // namespace ssdfast::SSDFAST_ISA
