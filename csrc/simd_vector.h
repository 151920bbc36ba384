// W float lanes by the compiler's own vector types: AVX2 where SSDFAST_AVX2 is 1, else any processor. The names are those of
// simd_avx512.h. Comparisons give -1 or 0 per lane.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "half_floats.h"
#include "isa.h"

#if SSDFAST_AVX2
#include <immintrin.h>
#endif

namespace ssdfast::SSDFAST_ISA {

constexpr int W = 8;
typedef float F __attribute__((vector_size(32)));
typedef int32_t M __attribute__((vector_size(32)));
typedef uint32_t U __attribute__((vector_size(32)));

inline F set(float x) { return F{x, x, x, x, x, x, x, x}; }
inline F load(const float* p) { F x; std::memcpy(&x, p, sizeof x); return x; }
inline void store(float* p, F x) { std::memcpy(p, &x, sizeof x); }
inline F as_float(M x) { F y; std::memcpy(&y, &x, sizeof y); return y; }
inline M as_int(F x) { M y; std::memcpy(&y, &x, sizeof y); return y; }

#if SSDFAST_AVX2
inline F load(const BF16* p) {
  __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return as_float(reinterpret_cast<M>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16)));
}
inline F load(const FP16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F max(F a, F b) { return _mm256_max_ps(a, b); }  // b where either is NaN
inline F min(F a, F b) { return _mm256_min_ps(a, b); }
inline uint32_t bits(M m) { return static_cast<uint32_t>(_mm256_movemask_ps(as_float(m))); }
#else
inline F load(const BF16* p) {
  M x;
  for (int i = 0; i < W; ++i) x[i] = static_cast<int32_t>(static_cast<uint32_t>(p[i].bits) << 16);
  return as_float(x);
}
inline F load(const FP16* p) {
  F x;
  for (int i = 0; i < W; ++i) x[i] = value(p + i);
  return x;
}
inline F fma(F a, F b, F c) { return a * b + c; }
inline F max(F a, F b) { return a > b ? a : b; }  // b where either is NaN
inline F min(F a, F b) { return a < b ? a : b; }
inline uint32_t bits(M m) {
  uint32_t r = 0;
  for (int i = 0; i < W; ++i) r |= static_cast<uint32_t>(m[i] & 1) << i;
  return r;
}
#endif

inline F abs(F x) { return as_float(as_int(x) & 0x7fffffff); }
inline F reciprocal(F x) { return 1.f / x; }
inline M greater(F a, F b) { return a > b; }
inline M greater_equal(F a, F b) { return a >= b; }
inline M equal(F a, F b) { return a == b; }
inline M both(M a, M b) { return a & b; }
inline M either(M a, M b) { return a | b; }
inline M negate(M a) { return ~a; }
inline M first_lanes(int n) { return M{0, 1, 2, 3, 4, 5, 6, 7} < n; }
inline M from_bits(uint32_t lanes) {
  const M one_each = {1, 2, 4, 8, 16, 32, 64, 128};
  return (one_each & static_cast<int32_t>(lanes)) != 0;
}
inline F select(M m, F a, F b) { return m ? a : b; }
inline F keep(M m, F a) { return as_float(m & as_int(a)); }
inline F add_if(M m, F sum, F a) { return sum + keep(m, a); }

#if SSDFAST_AVX2
// For each set of lanes, which they are, those in front first.
struct LaneOrders {
  uint8_t lane[256][W];
  constexpr LaneOrders() : lane() {
    for (int set = 0; set < 256; ++set)
      for (int i = 0, n = 0; i < W; ++i)
        if (set >> i & 1) lane[set][n++] = static_cast<uint8_t>(i);
  }
};
constexpr LaneOrders LANE_ORDERS;
#endif

// Stores the lanes of m side by side and returns their number; writes up to W floats.
inline int compress(float* to, M m, F x) {
  const uint32_t lanes = bits(m);
#if SSDFAST_AVX2
  const __m128i order = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(LANE_ORDERS.lane[lanes]));
  store(to, F(_mm256_permutevar8x32_ps(x, _mm256_cvtepu8_epi32(order))));
  return __builtin_popcount(lanes);
#else
  int n = 0;
  for (uint32_t rest = lanes; rest; rest &= rest - 1) to[n++] = x[__builtin_ctz(rest)];
  return n;
#endif
}

inline float sum(F x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }
inline float max_lane(F x) {
  float m = x[0];
  for (int i = 1; i < W; ++i) m = x[i] > m ? x[i] : m;
  return m;
}
inline float min_lane(F x) {
  float m = x[0];
  for (int i = 1; i < W; ++i) m = x[i] < m ? x[i] : m;
  return m;
}

// e^x for x <= 0, within 2 ulp; 0 below -87.3 (if FAR; else x must not be so low); NaN stays. 2^f by a polynomial of
// degree six.
template <bool FAR = true>
inline F exp(F x) {
  const F shift = set(12582912.f);  // 1.5 * 2^23: the sum keeps whole numbers
  const F shifted = fma(x, set(1.44269504088896f), shift);
  const F n = shifted - shift;
  // x - n ln 2 in two steps: the first product is exact, so no bit of x is lost where n is large.
  const F f = (fma(n, set(-0.693145751953125f), x) - n * 1.42860682e-6f) * 1.44269504088896f;
  F p = fma(set(1.54614475e-4f), f, set(1.33908674e-3f));
  p = fma(p, f, set(9.61805667e-3f));
  p = fma(p, f, set(5.55035710e-2f));
  p = fma(p, f, set(2.40226509e-1f));
  p = fma(p, f, set(6.93147188e-1f));
  p = fma(p, f, set(1.f));
  // Unsigned: far below -87.3 this wraps, and the lane is dropped.
  const U scale = (reinterpret_cast<U>(as_int(shifted)) - 0x4b400000u + 127u) << 23;
  if constexpr (FAR) return keep(~(x < -87.33f), p * as_float(reinterpret_cast<M>(scale)));
  else return p * as_float(reinterpret_cast<M>(scale));
}

// The order-preserving keys of 16-bit floats.
constexpr int KEYS = 16;
typedef int16_t Keys __attribute__((vector_size(32)));
inline Keys load_keys(const void* p) {
  Keys x;
  std::memcpy(&x, p, sizeof x);
  return x ^ (x >> 15 & 0x7fff);
}
inline Keys max(Keys a, Keys b) { return a > b ? a : b; }
inline Keys min(Keys a, Keys b) { return a < b ? a : b; }
inline int max_lane(Keys x) {
  int m = x[0];
  for (int i = 1; i < KEYS; ++i) m = std::max<int>(m, x[i]);
  return m;
}
inline int min_lane(Keys x) { return ~max_lane(~x); }

}  // namespace ssdfast::SSDFAST_ISA
