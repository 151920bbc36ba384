// The product by packed panels, for any vectors. A source file includes this after the pragma that chooses its
// instruction set.
//
// A tile is STRIP rows by PANEL vocabulary entries, its sums in registers. A panel of the head is first repacked so that
// its entries' words are vectors: one pass over the head for each block of rows, hidden behind the tiles where the rows
// are many. Both operands stay in the caches, at most DEPTH words of a row at a time. Each DEPTH is summed apart, so that
// rounding does not grow with H.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "linear_logits.h"

namespace ssdfast {
namespace {

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

// Some rows by one panel: out (+)= hidden . panel, over `words` words. `width` entries of the panel exist.
using TileFn = void (*)(const uint32_t* hidden, const uint32_t* panel, int64_t words, bool add, float* out, int64_t stride,
                        int64_t width, Ahead ahead);

// Way has STRIP, PANEL, DEPTH, words_of(job), word_bytes(job) of a word where the head is, word(job, row, p),
// pack_panel(job, first, begin, count, packed) and tiles(job), the tile functions of 1 to STRIP rows.
template <class Way>
struct Panels {
  static constexpr int STRIP = Way::STRIP, PANEL = Way::PANEL;

  static int64_t packed_size(const LinearJob& job) { return (job.n + STRIP - 1) / STRIP * STRIP * Way::words_of(job); }

  // Strip by strip, packed[word * STRIP + row]. Rows beyond the last are never read.
  static void pack_hidden(const LinearJob& job, uint32_t* packed) {
    const int64_t words = Way::words_of(job);
    for (int64_t n = 0; n < job.n; ++n) {
      const uint16_t* row = job.hidden + n * job.stride_hidden;
      uint32_t* strip = packed + n / STRIP * STRIP * words + n % STRIP;
      for (int64_t p = 0; p < words; ++p) strip[p * STRIP] = Way::word(job, row, p);
    }
  }

  // Words that are summed together: a row in equal parts, each a multiple of 16.
  static int64_t depth_of(int64_t words) {
    const int64_t parts = (words + Way::DEPTH - 1) / Way::DEPTH;
    return ((words + parts - 1) / parts + 15) / 16 * 16;
  }

  static void panels(const LinearJob& job, const uint32_t* packed, int64_t begin, int64_t end) {
    const int64_t words = Way::words_of(job), strips = (job.n + STRIP - 1) / STRIP;
    const int64_t full_depth = depth_of(words);
    const int64_t word_bytes = Way::word_bytes(job);
    const TileFn* tiles = Way::tiles(job);
    std::vector<uint32_t> memory(full_depth * PANEL + 16);
    uint32_t* panel = reinterpret_cast<uint32_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t{63});
    for (int64_t first = begin * PANEL; first < std::min(end * PANEL, job.v); first += PANEL) {
      const int64_t width = std::min<int64_t>(PANEL, job.v - first);
      for (int64_t p = 0; p < words; p += full_depth) {
        const int64_t depth = std::min(full_depth, words - p);
        Way::pack_panel(job, first, p, depth, panel);
        const bool same = p + full_depth < words;  // the next part of H is of the same entries
        const int64_t next = same ? first : first + PANEL, next_word = same ? p + full_depth : 0;
        const int64_t lines = (std::min(full_depth, words - next_word) * word_bytes + 63) / 64;
        const int64_t all = lines * std::clamp<int64_t>(std::min(job.v, end * PANEL) - next, 0, PANEL);
        for (int64_t s = 0; s < strips; ++s) {
          const int64_t row = s * STRIP, rows = std::min<int64_t>(STRIP, job.n - row);
          const int64_t done = all * s / strips;
          const char* from = reinterpret_cast<const char*>(job.weight + (next + done / lines) * job.stride_weight);
          const Ahead ahead{from + next_word * word_bytes, 2 * job.stride_weight, lines, done % lines,
                            all * (s + 1) / strips - done};
          tiles[rows - 1](packed + row * words + p * STRIP, panel, depth, p > 0, job.out + row * job.stride_out + first,
                          job.stride_out, width, ahead);
        }
      }
    }
  }

  static constexpr Product product() { return {PANEL, packed_size, pack_hidden, panels}; }
};

}  // namespace
}  // namespace ssdfast
