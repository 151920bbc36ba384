// One pass over a row or a pair of rows. Each CHUNK is scanned and summed while it is in the L1 cache, so memory is read
// once. x is relative to the largest logit so far; where that grows, the sums are brought to the new one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "isa.h"
#include "probe_row.h"
#include "probe_stats.h"
#include "simd.h"

namespace ssdfast::SSDFAST_ISA {

struct ModelSums {
  float max = NEVER;     // what x is relative to
  double sum = 0;        // sum e^x
  double weighted = 0;   // sum e^x x
  std::vector<float> block_sum, block_shift;  // sum e^x of each block, and what its x was relative to: NEVER if it is empty

  void start(int64_t blocks) {
    max = NEVER, sum = weighted = 0;
    block_sum.assign(blocks, 0.f), block_shift.assign(blocks, NEVER);
  }
  // Returns by what e^x shrinks.
  double raise(float to) {
    if (to == max || max == NEVER) return max = to, 1;
    const double shift = double(max) - to, scale = std::exp(shift);
    weighted = scale * (weighted + shift * sum), sum *= scale, max = to;
    return scale;
  }
};

// sum e^(x/T) for each planned temperature, fed block by block.
struct Powers {
  const std::vector<Power>& plan;
  std::vector<float> block;  // e^x, then the planned powers, BLOCK each
  std::vector<float> x, lanes;
  std::vector<double> sums;
  int root = -1;  // the power e^(x/2), whose square is e^x: one exponential for both

  explicit Powers(const Job& job)
      : plan(job.powers), block((plan.size() + 1) * BLOCK), x(BLOCK), lanes(plan.size() * W), sums(plan.size()) {
    if (SSDFAST_AVX512) return;  // its exponential is less exact, and a square would be twice as wrong
    for (size_t s = 0; s < plan.size(); ++s)
      if (plan[s].beta == 0.5f) root = static_cast<int>(s) + 1;
  }
  float* power(int i) { return block.data() + i * BLOCK; }
  void start() { std::fill(sums.begin(), sums.end(), 0.0); }
  void raise(double shift) {  // shift: old maximum - new
    for (size_t s = 0; s < plan.size(); ++s) sums[s] *= std::exp(shift * plan[s].beta);
  }
  void add(int count) {
    for (int s = 0; s < static_cast<int>(plan.size()); ++s) {
      const int* factor = plan[s].factor;
      const float *f = power(std::max(0, factor[0])), *g = power(std::max(0, factor[1])), *h = power(std::max(0, factor[2]));
      const float* root_e = power(s + 1);
      const F beta = set(plan[s].beta);
      if (s + 1 == root) add(s, count, [=](int i) { return load(root_e + i); });
      else if (factor[0] < 0) add(s, count, [=, xs = x.data()](int i) { return exp(load(xs + i) * beta); });
      else if (factor[2] < 0) add(s, count, [=](int i) { return load(f + i) * load(g + i); });
      else add(s, count, [=](int i) { return load(f + i) * load(g + i) * load(h + i); });
    }
  }
  // A loop of its own for each kind of power: what is decided inside costs as much as a product.
  template <class Fn>
  void add(int s, int count, Fn power_at) {
    float* out = power(s + 1);
    F sum = load(&lanes[s * W]);
    for (int i = 0; i < count; i += W) {
      const F e = power_at(i);
      store(out + i, e);
      sum = sum + e;
    }
    store(&lanes[s * W], sum);
  }
  void flush() {
    for (size_t s = 0; s < plan.size(); ++s) sums[s] += sum(load(&lanes[s * W]));
    std::fill(lanes.begin(), lanes.end(), 0.f);
  }
};

// One model.
template <class T>
void sweep(Row<T>& row, ModelSums& out, Powers& powers) {
  out.start(row.blocks()), powers.start();
  for (int64_t begin = 0; begin < row.v; begin += CHUNK) {
    const int64_t end = std::min(row.v, begin + CHUNK);
    row.scan(begin, end);
    if (row.max == NEVER) continue;
    if (out.max != NEVER && row.max != out.max) powers.raise(double(out.max) - row.max);
    out.raise(row.max);
    const F m = set(row.max), half = set(0.5f), lowest = set(-87.33f);
    F weighted = set(0);
    float *const xs = powers.x.data(), *const es = powers.power(0), *const roots = powers.power(std::max(0, powers.root));
    for (int64_t k = begin / BLOCK; k * BLOCK < end; ++k) {
      const int64_t first = k * BLOCK, last = row.block_end(k);
      F total = set(0);
      const auto add = [&](int64_t i, F x, F e) {
        store(xs + (i - first), x), store(es + (i - first), e);
        weighted = fma(e, x, weighted), total = total + e;
      };
      if (powers.root < 0) {
        for_each(row.z, first, last, [&](int64_t i, int, F z) {
          const F x = below_max(z, m);
          add(i, x, exp(x));
        });
      } else {
        for_each(row.z, first, last, [&](int64_t i, int, F z) {
          const F x = below_max(z, m), root = exp(x * half);
          store(roots + (i - first), root);
          add(i, x, keep(greater_equal(x, lowest), root * root));  // a denormal square would be slow
        });
      }
      powers.add(static_cast<int>(last - first));
      out.sum += out.block_sum[k] = sum(total), out.block_shift[k] = row.max;
    }
    out.weighted += sum(weighted);
    powers.flush();
  }
}

// Both models at once with the sums of d = x_a - x_b: everything that one read of a pair can give.
template <class T>
struct PairSweep {
  Row<T>&a, &b;
  ModelSums &out_a, &out_b;
  double a_d = 0, b_d = 0, a_dd = 0;  // sum e^x_a d, sum e^x_b d, sum e^x_a d²
  bool waiting = false;               // for a token that can occur, in one of the models

  // False if one of the models never has a token that can occur: then nothing was summed.
  bool run() {
    out_a.start(a.blocks()), out_b.start(b.blocks());
    for (int64_t begin = 0; begin < a.v; begin += CHUNK) {
      const int64_t end = std::min(a.v, begin + CHUNK);
      a.scan(begin, end), b.scan(begin, end);
      if (a.max == NEVER || b.max == NEVER) {  // what the other has so far is summed later
        waiting = true;
        continue;
      }
      raise();
      if (std::exchange(waiting, false))
        for (int64_t before = 0; before < begin; before += CHUNK) chunk<true>(before, before + CHUNK);
      const bool whole = end % BLOCK == 0 && a.near() && b.near();
      whole ? chunk<false>(begin, end) : chunk<true>(begin, end);
    }
    return !waiting;
  }

  void raise() {
    const double d_shift = out_a.max == NEVER ? 0 : (double(out_a.max) - a.max) - (double(out_b.max) - b.max);
    const double old_a = out_a.sum, old_b = out_b.sum, scale_a = out_a.raise(a.max), scale_b = out_b.raise(b.max);
    a_dd = scale_a * (a_dd + 2 * d_shift * a_d + d_shift * d_shift * old_a);
    a_d = scale_a * (a_d + d_shift * old_a), b_d = scale_b * (b_d + d_shift * old_b);
  }

  template <bool FAR>
  void chunk(int64_t begin, int64_t end) {
    const F ma = set(a.max), mb = set(b.max);
    F weighted_a = set(0), weighted_b = weighted_a, sum_a_d = weighted_a, sum_b_d = weighted_a, sum_a_dd = weighted_a;
    for (int64_t k = begin / BLOCK; k * BLOCK < end; ++k) {
      const int64_t first = k * BLOCK, last = a.block_end(k);
      F total_a = set(0), total_b = total_a;
      for_each_pair(a.z, b.z, first, last, [&](int64_t, int, F za, F zb) {
        const F xa = below_max<FAR>(za, ma), xb = below_max<FAR>(zb, mb);
        const F ea = exp<FAR>(xa), eb = exp<FAR>(xb), d = xa - xb, ea_d = ea * d;
        total_a = total_a + ea, total_b = total_b + eb;
        weighted_a = fma(ea, xa, weighted_a), weighted_b = fma(eb, xb, weighted_b);
        sum_a_d = sum_a_d + ea_d, sum_b_d = fma(eb, d, sum_b_d), sum_a_dd = fma(ea_d, d, sum_a_dd);
      });
      out_a.sum += out_a.block_sum[k] = sum(total_a), out_a.block_shift[k] = a.max;
      out_b.sum += out_b.block_sum[k] = sum(total_b), out_b.block_shift[k] = b.max;
    }
    out_a.weighted += sum(weighted_a), out_b.weighted += sum(weighted_b);
    a_d += sum(sum_a_d), b_d += sum(sum_b_d), a_dd += wide_sum(sum_a_dd);
  }
};

}  // namespace ssdfast::SSDFAST_ISA
