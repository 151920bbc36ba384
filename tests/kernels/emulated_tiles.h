// The matrix unit in plain C++: what Intel's manual says of TILELOADD, TILESTORED, TILEZERO and TDPBF16PS, on tiles of the
// configured shape. Using it without a configuration, or beyond it, aborts. Loads from behind `end` are counted.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace emulated {

struct Unit {
  bool configured = false;
  int rows[8] = {}, bytes[8] = {};
  unsigned char tile[8][16][64] = {};
};
inline thread_local Unit unit;
inline const char* end = nullptr;  // of an operand, with GUARD bytes behind it that belong to nothing
inline long loads_behind_end = 0;
constexpr long GUARD = 4096;

inline void check(bool fine) {
  if (!fine) std::abort();
}
inline void configure(const void* shapes) {
  const auto* bytes = static_cast<const uint8_t*>(shapes);
  check(bytes[0] == 1 && reinterpret_cast<uintptr_t>(shapes) % 64 == 0);
  for (int i = 1; i < 16; ++i) check(bytes[i] == 0);
  for (int i = 0; i < 8; ++i) {
    uint16_t width;
    std::memcpy(&width, bytes + 16 + 2 * i, 2);
    unit.rows[i] = bytes[48 + i], unit.bytes[i] = width;
    check(unit.rows[i] <= 16 && unit.bytes[i] <= 64);
  }
  unit.configured = true;
  std::memset(unit.tile, 0xff, sizeof unit.tile);  // NaN: what is not loaded or zeroed must not be used
}
inline void release() { unit.configured = false; }
inline void zero(int t) {
  check(unit.configured);
  std::memset(unit.tile[t], 0, sizeof unit.tile[t]);
}
inline void load(int t, const void* base, long stride) {
  check(unit.configured);
  for (int i = 0; i < unit.rows[t]; ++i) {
    const char* row = static_cast<const char*>(base) + i * stride;
    loads_behind_end += end && row + unit.bytes[t] > end && row < end + GUARD;
    std::memcpy(unit.tile[t][i], row, unit.bytes[t]);
  }
}
inline void store(int t, void* base, long stride) {
  check(unit.configured);
  for (int i = 0; i < unit.rows[t]; ++i) std::memcpy(static_cast<char*>(base) + i * stride, unit.tile[t][i], unit.bytes[t]);
}
inline float from_bf16(const unsigned char* p) {
  const uint32_t bits = (static_cast<uint32_t>(p[1]) << 24) | (static_cast<uint32_t>(p[0]) << 16);
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline void multiply(int c, int a, int b) {
  check(unit.configured && unit.rows[c] == unit.rows[a] && unit.bytes[c] == unit.bytes[b] && unit.bytes[a] / 4 == unit.rows[b]);
  for (int m = 0; m < unit.rows[c]; ++m)
    for (int n = 0; n < unit.bytes[c] / 4; ++n) {
      float sum;
      std::memcpy(&sum, unit.tile[c][m] + 4 * n, 4);
      for (int k = 0; k < unit.bytes[a] / 4; ++k)
        for (int half = 0; half < 2; ++half)
          sum += from_bf16(unit.tile[a][m] + 4 * k + 2 * half) * from_bf16(unit.tile[b][k] + 4 * n + 2 * half);
      std::memcpy(unit.tile[c][m] + 4 * n, &sum, 4);
    }
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(shapes) emulated::configure(shapes)
#define _tile_release() emulated::release()
#define _tile_zero(t) emulated::zero(t)
#define _tile_loadd(t, base, stride) emulated::load(t, base, stride)
#define _tile_stored(t, base, stride) emulated::store(t, base, stride)
#define _tile_dpbf16ps(c, a, b) emulated::multiply(c, a, b)
