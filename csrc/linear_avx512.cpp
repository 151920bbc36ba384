// The product in AVX-512. A word is 32 bits of a row: one float, or a pair of bf16, of which vdpbf16ps multiplies 16
// with 16 and adds to 16 float32 sums.
//
// A tile's sums are 24 registers. The repacking is hidden behind the tiles from 48 rows on. DEPTH words are 60 KB of a
// panel, in L2, and 10 KB of a strip, in L1.
#include "linear_logits.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstdint>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif
#include <immintrin.h>

#include "linear_panels.h"

namespace ssdfast::avx512 {
namespace {

constexpr int STRIP = 8, PANEL = 48, VECTORS = PANEL / 16;

// 16 rows of up to 16 words, transposed: to[word * PANEL + row]. What is beyond `elements` of 16 bits is zero.
void transpose(const uint16_t* from, int64_t stride, int rows, int64_t elements, uint32_t* to) {
  const __mmask32 live = elements >= 32 ? ~0u : (1u << elements) - 1;
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = i < rows ? _mm512_maskz_loadu_epi16(live, from + i * stride) : _mm512_setzero_si512();
  for (int i = 0; i < 16; i += 2) t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]), r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]), r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {  // r[i], r[4 + i], r[8 + i], r[12 + i]: words i, 4 + i, 8 + i, 12 + i of four rows each
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88), t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88), t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    _mm512_storeu_si512(to + i * PANEL, _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88));
    _mm512_storeu_si512(to + (8 + i) * PANEL, _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd));
    _mm512_storeu_si512(to + (4 + i) * PANEL, _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88));
    _mm512_storeu_si512(to + (12 + i) * PANEL, _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd));
  }
}

inline __m512 broadcast(uint32_t word) { return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(word))); }

template <bool BF16>
inline __m512 multiply_add(__m512 sum, __m512 x, __m512 w) {
  if constexpr (BF16) return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
  return _mm512_fmadd_ps(x, w, sum);
}

// ROWS rows by one panel: out (+)= hidden . panel. `width` entries of the panel exist.
template <bool BF16, int ROWS>
void tile(const uint32_t* hidden, const uint32_t* panel, int64_t words, bool add, float* out, int64_t stride, int64_t width,
          Ahead ahead) {
  __m512 sum[ROWS][VECTORS];
  const auto live = [&](int j) {
    return static_cast<__mmask16>(width >= 16 * (j + 1) ? 0xffff : width <= 16 * j ? 0 : (1 << (width - 16 * j)) - 1);
  };
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < VECTORS; ++j) sum[i][j] = _mm512_setzero_ps();
  for (int64_t p = 0; p < words; ++p) {
    ahead.fetch();
    __m512 w[VECTORS];
#pragma GCC unroll 3
    for (int j = 0; j < VECTORS; ++j) w[j] = _mm512_load_ps(panel + p * PANEL + 16 * j);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const __m512 x = broadcast(hidden[p * STRIP + i]);
#pragma GCC unroll 3
      for (int j = 0; j < VECTORS; ++j) sum[i][j] = multiply_add<BF16>(sum[i][j], x, w[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < VECTORS; ++j) {
      float* to = out + i * stride + 16 * j;
      if (add) sum[i][j] = _mm512_add_ps(sum[i][j], _mm512_maskz_loadu_ps(live(j), to));
      _mm512_mask_storeu_ps(to, live(j), sum[i][j]);
    }
}

template <bool BF16>
constexpr TileFn TILES[STRIP] = {tile<BF16, 1>, tile<BF16, 2>, tile<BF16, 3>, tile<BF16, 4>,
                                 tile<BF16, 5>, tile<BF16, 6>, tile<BF16, 7>, tile<BF16, 8>};

struct Way {
  static constexpr int STRIP = avx512::STRIP, PANEL = avx512::PANEL;
  static constexpr int64_t DEPTH = 320;  // at most, in words

  static int64_t words_of(const LinearJob& job) { return (job.halves + 1) / 2; }
  static int64_t word_bytes(const LinearJob&) { return 4; }

  // An odd half gets a zero.
  static uint32_t word(const LinearJob& job, const uint16_t* row, int64_t p) {
    const uint32_t low = row[2 * p], high = 2 * p + 1 < job.halves ? row[2 * p + 1] : 0;
    return low | high << 16;
  }

  // packed[word * PANEL + entry] of a panel's entries from `first` on, words [begin, begin + count); absent entries are zero.
  static void pack_panel(const LinearJob& job, int64_t first, int64_t begin, int64_t count, uint32_t* packed) {
    for (int entry = 0; entry < PANEL; entry += 16) {
      const int rows = static_cast<int>(std::clamp<int64_t>(job.v - first - entry, 0, 16));
      const uint16_t* from = job.weight + (first + entry) * job.stride_weight + 2 * begin;
      for (int64_t p = 0; p < count; p += 16)
        transpose(from + 2 * p, job.stride_weight, rows, job.halves - 2 * (begin + p), packed + p * PANEL + entry);
    }
  }

  static const TileFn* tiles(const LinearJob& job) { return job.bf16 ? TILES<true> : TILES<false>; }
};

}  // namespace

const Product PRODUCT = Panels<Way>::product();

}  // namespace ssdfast::avx512
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
