// The shortest prefix of a row, by falling probability, that reaches a mass: exact for any length, without a sort.
#pragma once

namespace ssdfast::SSDFAST_ISA {

// A prefix by its length, its smallest logit and how many of the tokens with that logit it takes, those of smallest id.
struct Prefix {
  int64_t size;
  float z;
  int64_t ties;
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
  int64_t found = -1;
  for (int64_t k = 0; k < row.blocks() && found < 0; ++k) {
    if (row.block_max[k] < z) continue;
    for_each(row.z, k * BLOCK, row.block_end(k), [&](int64_t i, int, F x) {
      uint32_t lanes = bits(equal(x, set(z)));
      const int here = __builtin_popcount(lanes);
      if (found < 0 && n <= here) {
        for (; n > 1; --n) lanes &= lanes - 1;
        found = i + __builtin_ctz(lanes);
      }
      n -= here;
    });
  }
  return found;
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

// fp32 logits: three passes fix 11, 11 and 10 bits of the key at the cut; each sums the mass of every digit.
template <class T>
Prefix find_prefix(const Row<T>& row, double beta, double target) {
  std::vector<int64_t> counts;
  std::vector<double> mass;
  uint32_t prefix = 0, prefix_mask = 0;
  double reached = 0;
  int64_t size = 0;
  const F m = set(row.max), scale = set(static_cast<float>(beta));
  for (const int shift : {21, 10, 0}) {
    const uint32_t digits = shift == 0 ? 1 << 10 : 1 << 11;
    counts.assign(digits, 0), mass.assign(digits, 0);
    for_each(row.z, 0, row.v, [&](int64_t, int lanes, F z) {
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
    bool found = false;
    for (int64_t digit = digits - 1; digit >= 0 && !found; --digit) {
      if (counts[digit] == 0) continue;
      last = static_cast<uint32_t>(digit);
      found = reached + mass[digit] >= target;
      if (!found) reached += mass[digit], size += counts[digit];
    }
    if (!found) reached -= mass[last], size -= counts[last];
    prefix |= last << shift, prefix_mask |= (digits - 1) << shift;
    if (shift == 0) {
      const int64_t count = counts[last];
      const int64_t n = found ? tokens_needed(target - reached, mass[last] / count, count) : count;
      const float z = from_ordered_key(prefix);
      return {size + n, z, n};
    }
  }
  return {};  // not reached: the last shift returns
}

}  // namespace ssdfast::SSDFAST_ISA
