// A row of logits: loops over it, its first scan, its K best tokens.
//
// x is a logit minus its row's maximum, never below FLOOR, so that a token that cannot occur has e^x = 0 and finite
// products. Sums run in float32 lanes over CHUNK tokens at most, then in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "half_floats.h"
#include "isa.h"
#include "probe_stats.h"
#include "simd.h"

namespace ssdfast::SSDFAST_ISA {

constexpr float NEVER = -std::numeric_limits<float>::infinity();
constexpr float FLOOR = -1e18f;
constexpr float NOT_A_NUMBER = std::numeric_limits<float>::quiet_NaN();
constexpr int CHUNK = 8 * BLOCK;  // tokens that are scanned and summed while they are in the L1 cache

// The first n of W logits; the other lanes hold -inf.
template <class T>
inline F load_padded(const T* z, int n) {
  T lanes[W];
  if constexpr (sizeof(T) == 4) std::fill_n(lanes, W, NEVER);
  else std::fill_n(lanes, W, T{T::MINUS_INFINITY});
  std::memcpy(lanes, z, n * sizeof(T));
  return load(lanes);
}

// Order-preserving, and its own inverse.
inline int16_t ordered_key16(uint16_t bits) { return static_cast<int16_t>(bits & 0x8000 ? bits ^ 0x7fff : bits); }

// f(index, lanes in use, logits) for every W tokens of [begin, end); lanes past the end hold -inf.
template <class T, class Fn>
inline void for_each(const T* z, int64_t begin, int64_t end, Fn f) {
  int64_t i = begin;
  for (; i + W <= end; i += W) f(i, W, load(z + i));
  if (i < end) f(i, static_cast<int>(end - i), load_padded(z + i, static_cast<int>(end - i)));
}

template <class T, class Fn>
inline void for_each_pair(const T* a, const T* b, int64_t begin, int64_t end, Fn f) {
  int64_t i = begin;
  for (; i + W <= end; i += W) f(i, W, load(a + i), load(b + i));
  const int n = static_cast<int>(end - i);
  if (n > 0) f(i, n, load_padded(a + i, n), load_padded(b + i, n));
}

// FAR: the row may hold logits so far below the maximum that e^x is 0, or -inf.
template <bool FAR = true>
inline F below_max(F z, F m) {
  if constexpr (FAR) return max(set(FLOOR), z - m);
  else return z - m;
}

// The sum of the lanes in double: that of squares of FLOOR would overflow a float.
inline double wide_sum(F x) {
  float lanes[W];
  store(lanes, x);
  double total = 0;
  for (float lane : lanes) total += lane;
  return total;
}

// A row of logits and the results of its first scan, CHUNK by CHUNK.
template <class T>
struct Row {
  const T* z;
  int64_t v;
  const T* next;           // the row that this thread takes next, or null
  std::vector<float>& block_max;
  float max = NEVER, min = -NEVER;  // so far; max is NaN if the row holds NaN

  int64_t blocks() const { return (v + BLOCK - 1) / BLOCK; }
  int64_t block_end(int64_t block) const { return std::min(v, (block + 1) * BLOCK); }
  // False for a row with NaN or +inf, or without a token that can occur.
  bool usable() const { return std::isfinite(max); }
  bool near() const { return min > max - 87; }  // no e^x is 0
  bool some_impossible() const { return min == NEVER; }

  // Prefetches a block of the next row during the computation on this one.
  void fetch_next(int64_t begin, int64_t end) const {
    if (next == nullptr) return;
    for (int64_t i = begin; i < end; i += 64 / sizeof(T)) __builtin_prefetch(next + i, 0, 2);
  }

  // The first scan of the tokens of [begin, end), whole blocks.
  void scan(int64_t begin, int64_t end) {
    if (begin == 0) block_max.resize(blocks());
    if constexpr (sizeof(T) == 2) scan_keys(begin, end);
    else scan_floats(begin, end);
  }

 private:
  void scan_floats(int64_t begin, int64_t end) {
    F top = set(NEVER), bottom = set(-NEVER);
    uint32_t nan = 0;
    for (int64_t k = begin / BLOCK; k * BLOCK < end; ++k) {
      F m = set(NEVER);
      for_each(z, k * BLOCK, block_end(k), [&](int64_t, int n, F x) {
        m = SSDFAST_ISA::max(x, m);
        bottom = SSDFAST_ISA::min(select(first_lanes(n), x, set(-NEVER)), bottom);
        nan |= bits(negate(equal(x, x)));
      });
      block_max[k] = max_lane(m);
      top = SSDFAST_ISA::max(m, top);
    }
    meet(nan ? NOT_A_NUMBER : max_lane(top), min_lane(bottom));
  }

  // 16-bit floats order as the integers sign ? ~magnitude : magnitude; NaN lies beyond the infinities.
  void scan_keys(int64_t begin, int64_t end) {
    int top = INT16_MIN, bottom = INT16_MAX;
    for (int64_t k = begin / BLOCK; k * BLOCK < end; ++k) {
      int64_t i = k * BLOCK;
      const int64_t last = block_end(k);
      int high = INT16_MIN;
      if (last - i == BLOCK) {
        Keys largest = load_keys(z + i), smallest = largest;
        for (i += KEYS; i < last; i += KEYS) {
          const Keys x = load_keys(z + i);
          largest = SSDFAST_ISA::max(largest, x), smallest = SSDFAST_ISA::min(smallest, x);
        }
        high = max_lane(largest), bottom = std::min(bottom, min_lane(smallest));
      }
      for (; i < last; ++i) {
        const int x = ordered_key16(z[i].bits);
        high = std::max(high, x), bottom = std::min(bottom, x);
      }
      block_max[k] = from_key(high);
      top = std::max(top, high);
    }
    meet(std::isnan(from_key(bottom)) ? NOT_A_NUMBER : from_key(top), from_key(bottom));
  }
  static float from_key(int key) {
    const T raw{static_cast<uint16_t>(ordered_key16(static_cast<uint16_t>(key)))};
    return value(&raw);
  }

  void meet(float chunk_max, float chunk_min) {
    max = std::isnan(chunk_max) || std::isnan(max) ? NOT_A_NUMBER : std::max(max, chunk_max);
    min = std::min(min, chunk_min);
  }
};

struct Token {
  float z;
  int32_t id;
};
inline bool ahead(const Token& s, const Token& t) { return s.z > t.z || (s.z == t.z && s.id < t.id); }

// Collects the K best tokens of a row that is offered in order of id.
// A token that cannot occur is never collected.
struct Candidates {
  int top;
  float bar;  // only tokens above the bar (or equal to it, until `strict`) can still matter
  bool strict = false;
  std::vector<Token> list;
  std::vector<float> scratch;

  void start(int k, const std::vector<float>& block_max) {
    const int64_t blocks = static_cast<int64_t>(block_max.size());
    top = k, strict = false;
    list.clear();
    bar = NEVER;
    const int64_t group = blocks >= 8 * k ? 4 : 1;
    if (blocks >= k) {  // k groups of blocks hold a token at least this large
      scratch.clear();
      for (int64_t i = 0; i < blocks; i += group)
        scratch.push_back(*std::max_element(&block_max[i], &block_max[i] + std::min(blocks - i, group)));
      std::nth_element(scratch.begin(), scratch.begin() + (k - 1), scratch.end(), std::greater<float>());
      bar = scratch[k - 1];
    }
    if (bar == NEVER) strict = true;
  }
  bool possible(float block_max) const { return block_max > bar || (!strict && block_max == bar); }
  M pass(F z) const { return strict ? greater(z, set(bar)) : greater_equal(z, set(bar)); }
  void offer(int64_t first_id, F z, M passed) {
    uint32_t lanes = bits(passed);
    if (lanes == 0) return;
    float zs[W];
    store(zs, z);
    for (; lanes; lanes &= lanes - 1) {
      const int i = __builtin_ctz(lanes);
      list.push_back({zs[i], static_cast<int32_t>(first_id + i)});
    }
    if (list.size() >= 1024) {
      shrink();
      bar = list[top - 1].z, strict = true;
    }
  }
  void shrink() {  // keep the K best, unordered but for the last
    std::nth_element(list.begin(), list.begin() + (top - 1), list.end(), ahead);
    list.resize(top);
  }
  void finish() {
    if (list.size() > size_t(top)) shrink();
    std::sort(list.begin(), list.end(), ahead);
  }
};

// The K best tokens; only blocks whose maximum is large enough are read again.
template <class T>
void collect(const Row<T>& row, int k, Candidates& best) {
  best.start(k, row.block_max);
  for (int64_t block = 0; block < row.blocks(); ++block) {
    if (!best.possible(row.block_max[block])) continue;
    for_each(row.z, block * BLOCK, row.block_end(block), [&](int64_t i, int, F z) { best.offer(i, z, best.pass(z)); });
  }
  best.finish();
}

// How many tokens are ahead of token y with logit zy: larger, or equal with a smaller id. y may be outside the row.
// Blocks without such a token are skipped.
template <class T>
int64_t rank_of(const Row<T>& row, float zy, int64_t y) {
  int64_t n = 0;
  for (int64_t k = 0; k < row.blocks(); ++k) {
    if (row.block_max[k] < zy) continue;
    const int64_t begin = k * BLOCK, end = row.block_end(k), split = std::clamp(y, begin, end);
    for_each(row.z, begin, split, [&](int64_t, int lanes, F z) {
      n += __builtin_popcount(bits(both(greater_equal(z, set(zy)), first_lanes(lanes))));
    });
    for_each(row.z, split, end, [&](int64_t, int, F z) { n += __builtin_popcount(bits(greater(z, set(zy)))); });
  }
  return n;
}

template <class T>
int64_t count_possible(const Row<T>& row) {
  if (!row.some_impossible()) return row.v;
  int64_t n = 0;
  for_each(row.z, 0, row.v, [&](int64_t, int, F z) { n += __builtin_popcount(bits(greater(z, set(NEVER)))); });
  return n;
}

// Whether there is a token that `by` forbids and `other` allows.
template <class T>
bool forbids(const Row<T>& by, const Row<T>& other) {
  if (!by.some_impossible()) return false;
  uint32_t forbidden = 0;
  for_each_pair(by.z, other.z, 0, by.v, [&](int64_t, int, F z_by, F z_other) {
    forbidden |= bits(both(equal(z_by, set(NEVER)), greater(z_other, set(NEVER))));
  });
  return forbidden != 0;
}

}  // namespace ssdfast::SSDFAST_ISA
