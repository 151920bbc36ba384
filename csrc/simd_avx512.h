// Sixteen float lanes in AVX-512 F, BW, VL and DQ. The names are those of simd_vector.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "half_floats.h"
#include "isa.h"

namespace ssdfast::SSDFAST_ISA {

constexpr int W = 16;
using F = __m512;
using M = __mmask16;

inline F set(float x) { return _mm512_set1_ps(x); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline F load(const BF16* p) {
  __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
inline F load(const FP16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }

inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }  // b where either is NaN
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F abs(F x) { return _mm512_abs_ps(x); }
inline F reciprocal(F x) {
  F r = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(2.f)));
}

inline M greater(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline M greater_equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline M equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline M both(M a, M b) { return a & b; }
inline M either(M a, M b) { return a | b; }
inline M negate(M a) { return static_cast<M>(~a); }
inline M first_lanes(int n) { return static_cast<M>((1u << n) - 1); }
inline uint32_t bits(M m) { return m; }
inline M from_bits(uint32_t lanes) { return static_cast<M>(lanes); }
inline F select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
inline F keep(M m, F a) { return _mm512_maskz_mov_ps(m, a); }
inline F add_if(M m, F sum, F a) { return _mm512_mask_add_ps(sum, m, sum, a); }

// Stores the lanes of m side by side and returns their number; writes up to W floats.
inline int compress(float* to, M m, F x) {
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(m, x));
  return __builtin_popcount(m);
}

inline float sum(F x) { return _mm512_reduce_add_ps(x); }
inline float max_lane(F x) { return _mm512_reduce_max_ps(x); }
inline float min_lane(F x) { return _mm512_reduce_min_ps(x); }

// e^x for x <= 0, within 5e-7 relative; 0 below -87.3 (if FAR; else x must not be so low); NaN stays. 2^f by a table of
// sixteen and a minimax quadratic.
template <bool FAR = true>
inline F exp(F x) {
  const F log2e = set(1.44269504088896f), shift = set(786432.f);  // 1.5 * 2^19: the sum keeps four fraction bits
  const F table = _mm512_setr_ps(1.f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f, 1.29683955f,
                                 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f, 1.68179283f,
                                 1.75625216f, 1.83400809f, 1.91520656f);
  const F shifted = _mm512_fmadd_ps(x, log2e, shift);
  const F n = _mm512_sub_ps(shifted, shift);
  const F f = _mm512_fmsub_ps(x, log2e, n);
  const F p = _mm512_fmadd_ps(set(0.240226507f), f, set(0.693187836f));
  const F base = _mm512_permutexvar_ps(_mm512_castps_si512(shifted), table);
  const F power = _mm512_fmadd_ps(_mm512_mul_ps(base, f), p, base);
  if constexpr (FAR) return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, set(-87.33f), _CMP_NLT_UQ), power, n);
  else return _mm512_scalef_ps(power, n);
}

// The order-preserving keys of 16-bit floats.
constexpr int KEYS = 32;
using Keys = __m512i;
inline Keys load_keys(const void* p) {
  const Keys x = _mm512_loadu_si512(p);
  return _mm512_xor_si512(x, _mm512_and_si512(_mm512_srai_epi16(x, 15), _mm512_set1_epi16(0x7fff)));
}
inline Keys max(Keys a, Keys b) { return _mm512_max_epi16(a, b); }
inline Keys min(Keys a, Keys b) { return _mm512_min_epi16(a, b); }
inline int max_lane(Keys x) {
  const __m256i half = _mm256_max_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  const __m128i eight = _mm_max_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return 0x7fff - (_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(0x7fff), eight))) & 0xffff);
}
inline int min_lane(Keys x) { return -1 - max_lane(_mm512_xor_si512(x, _mm512_set1_epi16(-1))); }

}  // namespace ssdfast::SSDFAST_ISA
