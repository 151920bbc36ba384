// 16-bit logits: a row holds few different values, so it is enough to count each bit pattern (about 1.5 cycles per token)
// and to do the arithmetic once per value.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "half_floats.h"
#include "isa.h"
#include "probe_nucleus.h"
#include "probe_row.h"
#include "probe_sweeps.h"
#include "simd.h"

namespace ssdfast::SSDFAST_ISA {

template <class T>
struct Patterns {
  static constexpr int SIGN = 1 << 15;
  std::vector<uint32_t> counts;
  size_t different;             // values in the lists
  std::vector<float> z;         // the different values, falling; -0 and +0 stay apart
  std::vector<float> times;     // how often each occurs (below 2^24, so exact)

  void count(Row<T>& row) {
    counts.resize(1 << 16);
    uint32_t* const c = counts.data();
    for (int64_t begin = 0; begin < row.v; begin += CHUNK) {
      const int64_t end = std::min(row.v, begin + CHUNK);
      row.scan(begin, end);
      int64_t i = begin;
      for (; i + 4 <= end; i += 4) {
        uint64_t four;
        std::memcpy(&four, row.z + i, 8);
        ++c[four & 0xffff], ++c[four >> 16 & 0xffff], ++c[four >> 32 & 0xffff], ++c[four >> 48];
      }
      for (; i < end; ++i) ++c[row.z[i].bits];
    }
    different = 0;
    if (!row.usable()) return std::fill(counts.begin(), counts.end(), 0u);
    if (row.max >= 0) take(scan_start(std::abs(row.max)), 0, -1);
    if (row.min <= 0) take(SIGN, scan_start(-std::abs(row.min)), 1);
  }

  // Moves the counts from the table, which it leaves zero, to the lists; tokens that cannot occur are left out.
  void take(int first, int last, int direction) {
    for (int pattern = first; pattern != last + direction; pattern += direction) {
      if (pattern % SKIP == (direction > 0 ? 0 : SKIP - 1))  // most of the table is zero
        while ((direction > 0 ? pattern + SKIP <= last : pattern >= SKIP) && none_in(pattern / SKIP)) pattern += direction * SKIP;
      const uint32_t n = counts[pattern];
      if (n == 0) continue;
      counts[pattern] = 0;
      const T raw{static_cast<uint16_t>(pattern)};
      if (value(&raw) == NEVER) continue;
      if (different == z.size()) z.resize(2 * different + 1024), times.resize(z.size());
      z[different] = value(&raw), times[different++] = float(n);
    }
  }
  static constexpr int SKIP = 16;
  bool none_in(int group) const {
    uint64_t any = 0, two;
    for (int i = 0; i < SKIP; i += 2) std::memcpy(&two, &counts[group * SKIP + i], 8), any |= two;
    return any == 0;
  }
  // Where to start looking for values up to |x| of x's sign.
  static int scan_start(float x) {
    if constexpr (std::is_same_v<T, BF16>) {
      uint32_t u;
      std::memcpy(&u, &x, 4);
      return static_cast<int>(u >> 16);
    }
    return std::signbit(x) ? T::MINUS_INFINITY : T::MINUS_INFINITY ^ SIGN;
  }

  void sums(const Row<T>& row, ModelSums& out, Powers& powers) {
    out.start(0), powers.start();
    out.max = row.max;
    const F m = set(row.max);
    for (size_t begin = 0; begin < different; begin += CHUNK) {
      const size_t end = std::min(different, begin + CHUNK);
      F total = set(0), weighted = set(0);
      for_each(&z[0], begin, end, [&](int64_t i, int n, F value) {
        const F x = below_max(value, m), e = all_times(i, n) * exp(x);
        total = total + e, weighted = fma(e, x, weighted);
      });
      out.sum += sum(total), out.weighted += sum(weighted);
      for (size_t s = 0; s < powers.plan.size(); ++s) {
        F power = set(0);
        const F beta = set(powers.plan[s].beta);
        for_each(&z[0], begin, end, [&](int64_t i, int n, F value) {
          power = fma(all_times(i, n), exp(below_max(value, m) * beta), power);
        });
        powers.sums[s] += sum(power);
      }
    }
  }

  // sum e^x over the tokens outside the top list.
  double sum_outside(const Row<T>& row, const std::vector<Token>& list) const {
    const F m = set(row.max);
    double total = 0;
    size_t i = 0;
    for (size_t listed = 0; i < different && listed < list.size(); ++i) {  // the values in the list
      float rest = times[i];
      for (; listed < list.size() && list[listed].z == z[i] && rest > 0; ++listed) --rest;
      total += rest * std::exp(double(z[i]) - row.max);
    }
    for_each(&z[0], i, different, [&](int64_t j, int n, F value) { total += sum(all_times(j, n) * exp(below_max(value, m))); });
    return total;
  }
  F all_times(int64_t i, int n) const { return n == W ? load(&times[i]) : keep(first_lanes(n), load_padded(&times[i], n)); }

  // The shortest prefix whose sum of e^(x beta) reaches `target`: each value is counted, so this is exact.
  Prefix find_prefix(const Row<T>& row, double beta, double target) const {
    double reached = 0;
    int64_t size = 0, before = 0;
    for (size_t i = 0; i < different; ++i) {
      const double each = std::exp((double(z[i]) - row.max) * beta);
      before = i > 0 && z[i] == z[i - 1] ? int64_t(times[i - 1]) : 0;  // -0 ties with +0
      const bool last = i + 1 == different;  // rounding may keep the sum below the target
      if (last || reached + each * times[i] >= target) {
        const int64_t n = tokens_needed(target - reached, each, int64_t(times[i]));
        return {size + n, z[i], before + n};
      }
      reached += each * times[i], size += int64_t(times[i]);
    }
    return {};
  }
};

template <>
struct Patterns<float> {};

}  // namespace ssdfast::SSDFAST_ISA
