// The product in AVX2. A word is a float; bf16 becomes one where it is packed.
//
// A tile's sums are 12 of the 16 registers. DEPTH words are 60 KB of a panel, in L2, and 10 KB of a strip, in L1: a panel
// that fits into L1 is slower, since the sums then go through memory more often.
#include "linear_logits.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include <immintrin.h>

#include "linear_panels.h"
#include "transpose8.h"

namespace ssdfast::avx2 {
namespace {

constexpr int STRIP = 4, PANEL = 24, VECTORS = PANEL / 8;
constexpr int LOAD = 16;  // halves that are loaded at a time

// 8 rows of LOAD halves, of which `rows` rows and `halves` halves exist and the others are zero, as words:
// to[word * PANEL + row].
template <bool BF16>
void pack8(const uint16_t* from, int64_t stride, int rows, int64_t halves, uint32_t* to) {
  __m256i r[8];
  for (int i = 0; i < 8; ++i) {
    alignas(32) uint16_t piece[LOAD] = {};
    const uint16_t* row = from + i * stride;
    if (i >= rows) {
      row = piece;
    } else if (halves < LOAD) {
      std::memcpy(piece, row, 2 * static_cast<size_t>(halves));
      row = piece;
    }
    r[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
  }
  transpose8(r);
  const auto store = [&](int word, __m256i x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + word * PANEL), x); };
  for (int i = 0; i < 8; ++i) {
    if constexpr (BF16) {
      store(2 * i, _mm256_slli_epi32(r[i], 16));
      store(2 * i + 1, _mm256_and_si256(r[i], _mm256_set1_epi32(static_cast<int>(0xffff0000))));
    } else {
      store(i, r[i]);
    }
  }
}

// ROWS rows by one panel: out (+)= hidden . panel. `width` entries of the panel exist.
template <int ROWS>
void tile(const uint32_t* hidden, const uint32_t* panel, int64_t words, bool add, float* out, int64_t stride, int64_t width,
          Ahead ahead) {
  const float* x = reinterpret_cast<const float*>(hidden);
  const float* w = reinterpret_cast<const float*>(panel);
  __m256 sum[ROWS][VECTORS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < VECTORS; ++j) sum[i][j] = _mm256_setzero_ps();
  for (int64_t p = 0; p < words; ++p, x += STRIP, w += PANEL) {
    ahead.fetch();
    const __m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + 8), w2 = _mm256_load_ps(w + 16);
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
      const __m256 xi = _mm256_broadcast_ss(x + i);
      sum[i][0] = _mm256_fmadd_ps(xi, w0, sum[i][0]);
      sum[i][1] = _mm256_fmadd_ps(xi, w1, sum[i][1]);
      sum[i][2] = _mm256_fmadd_ps(xi, w2, sum[i][2]);
    }
  }
  float edge[ROWS * PANEL] = {};
  float* to = out;
  int64_t to_stride = stride;
  const size_t edge_bytes = sizeof(float) * static_cast<size_t>(width);
  if (width < PANEL) {
    to = edge;
    to_stride = PANEL;
    if (add)
      for (int i = 0; i < ROWS; ++i) std::memcpy(edge + i * PANEL, out + i * stride, edge_bytes);
  }
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < VECTORS; ++j) {
      float* at = to + i * to_stride + 8 * j;
      if (add) sum[i][j] = _mm256_add_ps(sum[i][j], _mm256_loadu_ps(at));
      _mm256_storeu_ps(at, sum[i][j]);
    }
  if (width < PANEL)
    for (int i = 0; i < ROWS; ++i) std::memcpy(out + i * stride, edge + i * PANEL, edge_bytes);
}

constexpr TileFn TILES[STRIP] = {tile<1>, tile<2>, tile<3>, tile<4>};

struct Way {
  static constexpr int STRIP = avx2::STRIP, PANEL = avx2::PANEL;
  static constexpr int64_t DEPTH = 640;  // at most, in words

  static int64_t words_of(const LinearJob& job) { return job.bf16 ? job.halves : job.halves / 2; }
  static int64_t word_bytes(const LinearJob& job) { return job.bf16 ? 2 : 4; }

  static uint32_t word(const LinearJob& job, const uint16_t* row, int64_t p) {
    if (job.bf16) return static_cast<uint32_t>(row[p]) << 16;
    uint32_t word;
    std::memcpy(&word, row + 2 * p, 4);
    return word;
  }

  // packed[word * PANEL + entry] of a panel's entries from `first` on, words [begin, begin + count); absent entries are zero.
  static void pack_panel(const LinearJob& job, int64_t first, int64_t begin, int64_t count, uint32_t* packed) {
    const auto pack = job.bf16 ? pack8<true> : pack8<false>;
    const int64_t halves = word_bytes(job) / 2, step = LOAD / halves;
    for (int entry = 0; entry < PANEL; entry += 8) {
      const int rows = static_cast<int>(std::clamp<int64_t>(job.v - first - entry, 0, 8));
      const uint16_t* from = job.weight + (first + entry) * job.stride_weight + halves * begin;
      for (int64_t p = 0; p < count; p += step)
        pack(from + halves * p, job.stride_weight, rows, job.halves - halves * (begin + p), packed + p * PANEL + entry);
    }
  }

  static const TileFn* tiles(const LinearJob&) { return TILES; }
};

}  // namespace

const Product PRODUCT = Panels<Way>::product();

}  // namespace ssdfast::avx2
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
