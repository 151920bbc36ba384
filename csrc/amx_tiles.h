// The matrix unit of Intel processors (AMX): eight tiles of 16 rows of 64 bytes, here all of that size.
//
// _tile_dpbf16ps(c, a, b) adds a . b to the 16 x 16 float32 sums in c: a is 16 rows of 32 bf16, b is 16 rows of 16 pairs of
// bf16, the pair [word][column] belonging to a's elements 2 word and 2 word + 1. (Intel 64 and IA-32 Architectures Software
// Developer's Manual, volume 1, chapter 18; instruction TDPBF16PS in volume 2.)
//
// SSDFAST_TILES names a header that stands in for the unit, in tests on processors without it.
#pragma once

#include <cstdint>

#if defined(SSDFAST_TILES)
#include SSDFAST_TILES
#else
#include <immintrin.h>
#endif

namespace ssdfast::amx {

constexpr int TILE_ROWS = 16, TILE_BYTES = 64;

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};

  TileShapes() {
    for (int tile = 0; tile < 8; ++tile) bytes_per_row[tile] = TILE_BYTES, rows[tile] = TILE_ROWS;
  }
};

// A thread may use tiles while one of these exists. The stores before it are seen by tile loads after it, of which the
// compiler does not know that they read memory.
class Tiles {
 public:
  Tiles() { _tile_loadconfig(&shapes_); }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  TileShapes shapes_;
};

inline void stores_are_done() { asm volatile("" ::: "memory"); }

}  // namespace ssdfast::amx
