// The shortest prefix of a row, by falling probability, that reaches a mass: exact for any length, without a sort.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "isa.h"
#include "probe_row.h"
#include "probe_stats.h"
#include "simd.h"

namespace ssdfast::SSDFAST_ISA {

// A prefix by its length, its smallest logit and how many of the tokens with that logit it takes, those of smallest id.
struct Prefix {
  int64_t size;
  float z;
  int64_t ties;
  bool complete = true;  // false where all tokens together fall short of the mass
};

// The last token of a prefix. A token is inside if its logit is larger, or equal with an id up to this one.
struct Cut {
  int64_t size;
  float z;
  int64_t id;
  bool inside(float other_z, int64_t other_id) const { return other_z > z || (other_z == z && other_id <= id); }
  M inside(F other_z, int64_t first_id) const {
    const uint32_t tied = bits(equal(other_z, set(z)));
    const int64_t n = id - first_id + 1;  // lanes from the left whose id is small enough
    const uint32_t early = n <= 0 ? 0 : n >= W ? ~0u : (1u << n) - 1;
    return either(greater(other_z, set(z)), from_bits(tied & early));
  }
};

// The id of the n-th token (n >= 1) whose logit is z.
template <class T>
int64_t nth_equal(const Row<T>& row, float z, int64_t n) {
  int64_t nth = -1;
  for (int64_t k = 0; k < row.blocks() && nth < 0; ++k) {
    if (row.block_max[k] < z) continue;
    for_each(row.z, k * BLOCK, row.block_end(k), [&](int64_t i, int, F x) {
      uint32_t lanes = bits(equal(x, set(z)));
      const int here = __builtin_popcount(lanes);
      if (nth < 0 && n <= here) {
        for (; n > 1; --n) lanes &= lanes - 1;
        nth = i + __builtin_ctz(lanes);
      }
      n -= here;
    });
  }
  return nth;
}

inline int64_t tokens_needed(double missing, double each, int64_t available) {
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(missing / each)), 1, available);
}

// A key that orders as the floats do; both zeros have the same.
inline uint32_t ordered_key(float z) {
  uint32_t u;
  z += 0.f;
  std::memcpy(&u, &z, 4);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
inline float from_ordered_key(uint32_t key) {
  const uint32_t u = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  float z;
  std::memcpy(&z, &u, 4);
  return z;
}

// Moves the logits of [low, high] to the front, in memory that has W floats more; returns their number.
inline int64_t keep_between(float* logits, int64_t n, float low, float high) {
  int64_t kept = 0;
  for_each(logits, 0, n, [&](int64_t, int, F z) {
    kept += compress(logits + kept, both(greater_equal(z, set(low)), greater_equal(set(high), z)), z);
  });
  return kept;
}

// Three passes fix 11, 11 and 10 bits of the key at the cut; each sums the mass of every digit. `scratch`: the logits, if they
// may be overwritten, so that a pass reads those of the prefix alone.
inline Prefix search_prefix(const float* logits, int64_t n, float largest, double beta, double target, float* scratch = nullptr) {
  std::vector<int64_t> counts;
  std::vector<double> mass;
  uint32_t prefix = 0, prefix_mask = 0;
  double reached = 0;
  int64_t size = 0;
  const F m = set(largest), scale = set(static_cast<float>(beta));
  for (const int shift : {21, 10, 0}) {
    const uint32_t digits = shift == 0 ? 1 << 10 : 1 << 11;
    counts.assign(digits, 0), mass.assign(digits, 0);
    for_each(logits, 0, n, [&](int64_t, int lanes, F z) {
      float zs[W], es[W];
      store(zs, z), store(es, exp(below_max(z, m) * scale));
      for (int i = 0; i < lanes; ++i) {
        const uint32_t key = ordered_key(zs[i]);
        if ((key & prefix_mask) != prefix || zs[i] == NEVER) continue;
        const uint32_t digit = key >> shift & (digits - 1);
        ++counts[digit], mass[digit] += es[i];
      }
    });
    uint32_t last = 0;  // the lowest digit in use: where rounding keeps the sum below the target, the cut is there
    bool complete = false;
    for (int64_t digit = digits - 1; digit >= 0 && !complete; --digit) {
      if (counts[digit] == 0) continue;
      last = static_cast<uint32_t>(digit);
      complete = reached + mass[digit] >= target;
      if (!complete) reached += mass[digit], size += counts[digit];
    }
    if (!complete) reached -= mass[last], size -= counts[last];
    prefix |= last << shift, prefix_mask |= (digits - 1) << shift;
    if (scratch) n = keep_between(scratch, n, from_ordered_key(prefix), from_ordered_key(prefix | ~prefix_mask));
    if (shift == 0) {
      const int64_t count = counts[last];
      const int64_t ties = complete ? tokens_needed(target - reached, mass[last] / count, count) : count;
      return {size + ties, from_ordered_key(prefix), ties, complete};
    }
  }
  return {};  // not reached: the last shift returns
}

// Between which logits a prefix of fp32 logits ends, by a sample of the row: 8 tokens of every BLOCK, or 16 of every second.
struct Bracket {
  float low = NEVER, high = std::numeric_limits<float>::infinity();  // the cut is in [low, high) if the sample is fair

  // The mass below a logit, unlike that above it, is a sum of many small terms, so a sample estimates it well: to a tenth of
  // it for the vocabulary of a small model. `behind`: the mass outside the prefix, relative to the row's maximum.
  template <class T>
  static Bracket find(const Row<T>& row, double beta, double behind) {
    constexpr int BINS = 512;
    constexpr float WIDTH = 1 / 16.f;  // of x beta
    double mass[BINS] = {}, squares[BINS] = {};
    const F m = set(row.max), scale = set(static_cast<float>(beta));
    const int64_t vectors = BLOCK / W;
    int64_t sampled = 0;
    for (int64_t k = 0; k < row.blocks(); k += W / 8) {
      const int64_t begin = k * BLOCK + k * 5 % vectors * W;  // not always the same place of a block
      if (begin + W > row.v) break;
      const F x = below_max(load(row.z + begin), m) * scale;
      float xs[W], es[W];
      store(xs, x), store(es, exp(x));
      sampled += W;
      for (int i = 0; i < W; ++i) {
        const int bin = static_cast<int>(std::min(-xs[i] * (1 / WIDTH), BINS - 1.f));
        mass[bin] += es[i], squares[bin] += double(es[i]) * es[i];
      }
    }
    Bracket bracket;
    if (sampled < 256) return bracket;
    const double each = double(row.v) / sampled;  // tokens that a sampled one stands for
    double below = 0, variance = 0;
    const auto logit = [&](int bin) { return static_cast<float>(row.max - bin * WIDTH / beta); };
    for (int bin = BINS - 1; bin > 0; --bin) {
      below += each * mass[bin], variance += each * each * squares[bin];
      const double doubt = 4 * std::sqrt(variance);
      if (below + doubt < behind) bracket.low = logit(bin);
      if (below - doubt > behind) return bracket.high = logit(bin), bracket;
    }
    return bracket;
  }
};

// fp32 logits: one pass sums what is above the bracket and copies what is inside, which is then searched.
template <class T>
Prefix find_prefix(const Row<T>& row, double beta, double target, double total, std::vector<float>& inside) {
  const Bracket bracket = Bracket::find(row, beta, total - target);
  const F m = set(row.max), scale = set(static_cast<float>(beta)), low = set(bracket.low), high = set(bracket.high);
  const int64_t room = row.v / 4;  // a bracket that holds more saves little
  inside.resize(room + CHUNK + W);
  double above = 0;
  int64_t size = 0, copied = 0;
  for (int64_t begin = 0; begin < row.v && copied <= room; begin += CHUNK) {
    F mass = set(0);
    for_each(row.z, begin, std::min(row.v, begin + CHUNK), [&](int64_t, int, F z) {
      const M over = greater_equal(z, high), between = both(negate(over), greater_equal(z, low));
      mass = add_if(over, mass, exp(below_max(z, m) * scale)), size += __builtin_popcount(bits(over));
      copied += compress(inside.data() + copied, both(between, greater(z, set(NEVER))), z);
    });
    above += sum(mass);
  }
  if (copied > 0 && copied <= room && above < target) {
    Prefix p = search_prefix(inside.data(), copied, row.max, beta, target - above, inside.data());
    if (p.complete || bracket.low == NEVER) return p.size += size, p;
  }
  return search_prefix(row.z, row.v, row.max, beta, target);
}

}  // namespace ssdfast::SSDFAST_ISA
