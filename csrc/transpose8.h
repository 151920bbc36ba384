// 8 x 8 words turned, in AVX2. A source file includes this after the pragma that chooses its instruction set.
#pragma once

#include <immintrin.h>

namespace ssdfast {
namespace {

inline void transpose8(__m256i r[8]) {
  __m256i t[8];
  for (int i = 0; i < 8; i += 2) t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]), t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]), r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]), r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 8; ++i) t[i] = r[i];
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2x128_si256(t[i], t[4 + i], 0x20);
    r[4 + i] = _mm256_permute2x128_si256(t[i], t[4 + i], 0x31);
  }
}

}  // namespace
}  // namespace ssdfast
