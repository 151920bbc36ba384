// The product in AMX, bf16 only.
//
// A tile of the head is read where it is: 16 entries by 32 elements are 16 rows of 64 bytes. So the head is not repacked,
// which would cost more than the product of the few rows of a block; the hidden states are, once. The sums are then
// out transposed, 32 entries by up to 32 rows in four tiles, and are turned when they are stored: once for all of H.
//
// Four loads of a kilobyte feed four products of 16 cycles each. DEPTH elements of 32 entries and of 32 rows are 40 KB
// each: one of the two stays in L1, the other comes from L2. Each DEPTH is summed apart, so that rounding does not grow
// with H.
#include "linear_logits.h"

#if defined(SSDFAST_HAS_AMX)
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,amx-tile,amx-bf16")
#endif
#include <immintrin.h>

#include "amx_tiles.h"
#include "transpose8.h"

namespace ssdfast::amx {
namespace {

constexpr int PANEL = 32;                 // vocabulary entries: two tiles
constexpr int STEP = 32;                  // elements of H per product of tiles
constexpr int64_t DEPTH = 640 / STEP;     // at most, in steps
constexpr int SUMS = TILE_ROWS * TILE_ROWS;

int64_t steps_of(const LinearJob& job) { return (job.halves + STEP - 1) / STEP; }

// PANEL entries of the head. The last step of a row that is no multiple of STEP is read from `tail`, a copy that ends
// with zeros: what follows a row may be NaN, which a zero on the other side would not cancel.
struct Entries {
  const uint16_t* rows;
  int64_t stride;        // in elements
  const uint16_t* tail;  // [PANEL, STEP], or null
  int64_t tail_step;     // the step that it stands for
  const uint16_t* next;  // the PANEL entries to prefetch, or null
};

// Sums of steps [begin, end) for PANEL entries and ROW_TILES x 16 rows: sums[row tile][entry tile][entry][row].
// hidden: [row tile][step][word][row], `hidden_tile` words between row tiles.
template <int ROW_TILES>
void multiply(const Entries& entries, const uint32_t* hidden, int64_t hidden_tile, int64_t begin, int64_t end, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (ROW_TILES == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = begin; step < end; ++step) {
    const bool tail = entries.tail && step == entries.tail_step;
    const uint16_t* from = tail ? entries.tail : entries.rows + step * STEP;
    const int64_t stride = tail ? STEP : entries.stride;
    const uint32_t* words = hidden + step * SUMS;
    if (entries.next)
      for (int entry = 0; entry < PANEL; ++entry) __builtin_prefetch(entries.next + entry * entries.stride + step * STEP, 0, 2);
    _tile_loadd(4, from, 2 * stride);
    _tile_loadd(6, words, TILE_BYTES);
    _tile_loadd(5, from + TILE_ROWS * stride, 2 * stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 5, 6);
    if constexpr (ROW_TILES == 2) {
      _tile_loadd(7, words + hidden_tile, TILE_BYTES);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, TILE_BYTES);
  _tile_stored(1, sums + SUMS, TILE_BYTES);
  if constexpr (ROW_TILES == 2) {
    _tile_stored(2, sums + 2 * SUMS, TILE_BYTES);
    _tile_stored(3, sums + 3 * SUMS, TILE_BYTES);
  }
}

// 8 x 8 floats turned: to[j * to_stride + i] = from[i * TILE_ROWS + j].
inline void turn8(const float* from, float* to, int64_t to_stride) {
  __m256i r[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i * TILE_ROWS));
  transpose8(r);
  for (int i = 0; i < 8; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * to_stride), r[i]);
}

inline void turn16(const float* from, float* to, int64_t to_stride) {
  for (int entry = 0; entry < TILE_ROWS; entry += 8)
    for (int row = 0; row < TILE_ROWS; row += 8) turn8(from + entry * TILE_ROWS + row, to + row * to_stride + entry, to_stride);
}

// One tile of sums to out[row, entry], of which `rows` rows and `width` entries exist.
void store(const float* sums, float* out, int64_t stride, int64_t rows, int64_t width) {
  if (rows >= TILE_ROWS && width >= TILE_ROWS) return turn16(sums, out, stride);
  alignas(64) float turned[SUMS];
  turn16(sums, turned, TILE_ROWS);
  const size_t bytes = sizeof(float) * static_cast<size_t>(std::clamp<int64_t>(width, 0, TILE_ROWS));
  for (int64_t row = 0; row < std::min<int64_t>(rows, TILE_ROWS); ++row)
    std::memcpy(out + row * stride, turned + row * TILE_ROWS, bytes);
}

// PANEL entries by ROW_TILES x 16 rows over all of H, in equal parts of at most DEPTH steps.
template <int ROW_TILES>
void rows_by_panel(const LinearJob& job, const Entries& entries, const uint32_t* packed, int64_t row, int64_t first) {
  const int64_t steps = steps_of(job), hidden_tile = steps * SUMS;
  const int64_t parts = (steps + DEPTH - 1) / DEPTH;
  alignas(64) float sums[ROW_TILES * 2 * SUMS], part[ROW_TILES * 2 * SUMS];
  for (int64_t i = 0; i < parts; ++i) {
    float* to = i == 0 ? sums : part;
    multiply<ROW_TILES>(entries, packed + row / TILE_ROWS * hidden_tile, hidden_tile, steps * i / parts, steps * (i + 1) / parts,
                        to);
    if (i > 0)
      for (int s = 0; s < ROW_TILES * 2 * SUMS; ++s) sums[s] += part[s];
  }
  for (int r = 0; r < ROW_TILES; ++r)
    for (int e = 0; e < 2; ++e)
      store(sums + (2 * r + e) * SUMS, job.out + (row + r * TILE_ROWS) * job.stride_out + first + e * TILE_ROWS, job.stride_out,
            job.n - row - r * TILE_ROWS, job.v - first - e * TILE_ROWS);
}

// `rows` rows of `count` elements, then zeros up to PANEL rows of `width` elements.
void copy_padded(const uint16_t* from, int64_t stride, int64_t rows, int64_t count, int64_t width, uint16_t* to) {
  for (int64_t row = 0; row < PANEL; ++row, to += width) {
    const int64_t elements = row < rows ? count : 0;
    if (elements > 0) std::memcpy(to, from + row * stride, sizeof(uint16_t) * static_cast<size_t>(elements));
    std::fill(to + elements, to + width, uint16_t{0});
  }
}

int64_t packed_size(const LinearJob& job) { return (job.n + TILE_ROWS - 1) / TILE_ROWS * steps_of(job) * SUMS; }

// packed[row tile][word][row]; what is beyond the last row, or beyond a row's end, is zero.
void pack_hidden(const LinearJob& job, uint32_t* packed) {
  const int64_t words = steps_of(job) * TILE_ROWS, rows = (job.n + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
  for (int64_t n = 0; n < rows; ++n) {
    const uint16_t* row = job.hidden + n * job.stride_hidden;
    const int64_t halves = n < job.n ? job.halves : 0;
    uint32_t* to = packed + n / TILE_ROWS * words * TILE_ROWS + n % TILE_ROWS;
    for (int64_t p = 0; p < words; ++p) {
      const uint32_t low = 2 * p < halves ? row[2 * p] : 0, high = 2 * p + 1 < halves ? row[2 * p + 1] : 0;
      to[p * TILE_ROWS] = low | high << 16;
    }
  }
}

void panels(const LinearJob& job, const uint32_t* packed, int64_t begin, int64_t end) {
  const int64_t steps = steps_of(job), remainder = job.halves % STEP;
  std::vector<uint16_t> last_panel;
  uint16_t tail[PANEL * STEP];
  const Tiles tiles;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * PANEL, width = std::min<int64_t>(PANEL, job.v - first);
    Entries entries{job.weight + first * job.stride_weight, job.stride_weight, nullptr, steps - 1, nullptr};
    if (width < PANEL) {
      last_panel.resize(PANEL * steps * STEP);
      copy_padded(entries.rows, entries.stride, width, job.halves, steps * STEP, last_panel.data());
      entries.rows = last_panel.data();
      entries.stride = steps * STEP;
    } else if (remainder) {
      copy_padded(entries.rows + (steps - 1) * STEP, entries.stride, PANEL, remainder, STEP, tail);
      entries.tail = tail;
    }
    stores_are_done();
    if (panel + 1 < end && first + 2 * PANEL <= job.v) entries.next = entries.rows + PANEL * entries.stride;
    for (int64_t row = 0; row < job.n; row += 2 * TILE_ROWS) {
      if (job.n - row > TILE_ROWS)
        rows_by_panel<2>(job, entries, packed, row, first);
      else
        rows_by_panel<1>(job, entries, packed, row, first);
      entries.next = nullptr;
    }
  }
}

}  // namespace

const Product PRODUCT = {PANEL, packed_size, pack_hidden, panels};

}  // namespace ssdfast::amx
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
