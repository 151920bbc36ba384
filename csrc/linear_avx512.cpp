// The product in AVX-512. A word is 32 bits of a row: one float, or a pair of bf16, of which vdpbf16ps multiplies 16
// with 16 and adds to 16 float32 sums.
//
// A tile is STRIP rows by PANEL vocabulary entries, its sums in 24 registers. A panel of the head is first repacked so
// that 16 entries' words are one vector; that is one pass over the head for each block of rows, hidden behind the tiles
// from 48 rows on. Both operands stay in the caches: DEPTH words at a time, 60 KB of a panel in L2, 10 KB of a strip in
// L1. Each DEPTH is summed apart, so that rounding does not grow with H.
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

namespace ssdfast::avx512 {
namespace {

constexpr int STRIP = 8, VECTORS = PANEL / 16;
constexpr int64_t DEPTH = 320;  // at most, in words

int64_t words_of(const LinearJob& job) { return (job.halves + 1) / 2; }

// Words that are summed together: a row in equal parts, each a multiple of 16.
int64_t depth_of(int64_t words) {
  const int64_t parts = (words + DEPTH - 1) / DEPTH;
  return ((words + parts - 1) / parts + 15) / 16 * 16;
}

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

// packed[word * PANEL + entry] of a panel's entries from `first` on, words [begin, begin + count); absent entries are zero.
void pack_panel(const LinearJob& job, int64_t first, int64_t begin, int64_t count, uint32_t* packed) {
  for (int entry = 0; entry < PANEL; entry += 16) {
    const int rows = static_cast<int>(std::clamp<int64_t>(job.v - first - entry, 0, 16));
    const uint16_t* from = job.weight + (first + entry) * job.stride_weight + 2 * begin;
    for (int64_t p = 0; p < count; p += 16)
      transpose(from + 2 * p, job.stride_weight, rows, job.halves - 2 * (begin + p), packed + p * PANEL + entry);
  }
}

inline __m512 broadcast(uint32_t word) { return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(word))); }

template <bool BF16>
inline __m512 multiply_add(__m512 sum, __m512 x, __m512 w) {
  if constexpr (BF16) return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
  return _mm512_fmadd_ps(x, w, sum);
}

// The cache lines of the next panel to prefetch while a tile is computed.
struct Ahead {
  const char* row;
  int64_t stride, lines, line, count;  // bytes between rows, lines of a row, the next line, lines left to fetch

  void fetch() {
    if (count == 0) return;
    __builtin_prefetch(row + 64 * line, 0, 2);
    --count;
    if (++line == lines) line = 0, row += stride;
  }
};

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

using TileFn = void (*)(const uint32_t*, const uint32_t*, int64_t, bool, float*, int64_t, int64_t, Ahead);
template <bool BF16>
constexpr TileFn TILES[STRIP] = {tile<BF16, 1>, tile<BF16, 2>, tile<BF16, 3>, tile<BF16, 4>,
                                 tile<BF16, 5>, tile<BF16, 6>, tile<BF16, 7>, tile<BF16, 8>};

}  // namespace

int64_t packed_size(const LinearJob& job) { return (job.n + STRIP - 1) / STRIP * STRIP * words_of(job); }

// Strip by strip, packed[word * STRIP + row]; an odd half gets a zero. Rows beyond the last are never read.
void pack_hidden(const LinearJob& job, uint32_t* packed) {
  const int64_t words = words_of(job);
  for (int64_t n = 0; n < job.n; ++n) {
    const uint16_t* row = job.hidden + n * job.stride_hidden;
    uint32_t* strip = packed + n / STRIP * STRIP * words + n % STRIP;
    for (int64_t p = 0; p < words; ++p) {
      const uint32_t low = row[2 * p], high = 2 * p + 1 < job.halves ? row[2 * p + 1] : 0;
      strip[p * STRIP] = low | high << 16;
    }
  }
}

void panels(const LinearJob& job, const uint32_t* packed, int64_t begin, int64_t end) {
  const int64_t words = words_of(job), strips = (job.n + STRIP - 1) / STRIP;
  const int64_t full_depth = depth_of(words);
  const TileFn* tiles = job.bf16 ? TILES<true> : TILES<false>;
  std::vector<uint32_t> memory(full_depth * PANEL + 16);
  uint32_t* panel = reinterpret_cast<uint32_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t{63});
  for (int64_t first = begin * PANEL; first < std::min(end * PANEL, job.v); first += PANEL) {
    const int64_t width = std::min<int64_t>(PANEL, job.v - first);
    for (int64_t p = 0; p < words; p += full_depth) {
      const int64_t depth = std::min(full_depth, words - p);
      pack_panel(job, first, p, depth, panel);
      const bool same = p + full_depth < words;  // the next part of H is of the same entries
      const int64_t next = same ? first : first + PANEL, next_word = same ? p + full_depth : 0;
      const int64_t lines = (std::min(full_depth, words - next_word) * 4 + 63) / 64;
      const int64_t all = lines * std::clamp<int64_t>(std::min(job.v, end * PANEL) - next, 0, PANEL);
      for (int64_t s = 0; s < strips; ++s) {
        const int64_t row = s * STRIP, rows = std::min<int64_t>(STRIP, job.n - row);
        const int64_t done = all * s / strips;
        const Ahead ahead{reinterpret_cast<const char*>(job.weight + (next + done / lines) * job.stride_weight + 2 * next_word),
                          2 * job.stride_weight, lines, done % lines, all * (s + 1) / strips - done};
        tiles[rows - 1](packed + (row * words) + p * STRIP, panel, depth, p > 0, job.out + row * job.stride_out + first,
                        job.stride_out, width, ahead);
      }
    }
  }
}

}  // namespace ssdfast::avx512
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
