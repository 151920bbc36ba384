// The columns that need the normalisers: divergences of the pair, and the mass of each token class.
//
// a is the baseline, b the trained model.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "isa.h"
#include "probe_row.h"
#include "probe_stats.h"
#include "simd.h"

namespace ssdfast::SSDFAST_ISA {

// Most tokens share one class, so its mass is summed a vector at a time; the others are listed.
struct ClassSums {
  const Job& job;
  float p[2][BLOCK];  // the probabilities of one block's tokens, under each model
  std::vector<double> mass[2];

  explicit ClassSums(const Job& j) : job(j), mass{std::vector<double>(j.n_classes), std::vector<double>(j.n_classes)} {}
  void start() {
    for (auto& m : mass) std::fill(m.begin(), m.end(), 0.0);
  }
  template <int MODELS>
  void add(int64_t begin, int64_t end) {
    F common[2] = {set(0), set(0)};
    const int n = static_cast<int>(end - begin);
    for (int i = 0; i < n; i += W) {
      const uint64_t word = job.common_class_mask[(begin + i) / 64] >> i % 64;
      const M of_class = from_bits(static_cast<uint32_t>(word) & ((1u << W) - 1));
      for (int m = 0; m < MODELS; ++m) common[m] = add_if(of_class, common[m], load(p[m] + i));
    }
    for (int m = 0; m < MODELS; ++m) mass[m][job.common_class] += sum(common[m]);
    const auto *other = job.others.data() + job.others_start[begin / BLOCK],
               *last = job.others.data() + job.others_start[begin / BLOCK + 1];
    for (; other != last; ++other)
      for (int m = 0; m < MODELS; ++m) mass[m][other->token_class] += p[m][other->place];
  }
};

// The class masses of one model alone, in mass[0].
template <class T>
void class_masses(const Row<T>& row, double sum_e, ClassSums& classes) {
  const F m = set(row.max), inverse = set(float(1 / sum_e));
  for (int64_t k = 0; k < row.blocks(); ++k) {
    const int64_t begin = k * BLOCK, end = row.block_end(k);
    for_each(row.z, begin, end, [&](int64_t i, int, F z) {
      store(classes.p[0] + (i - begin), exp(below_max(z, m)) * inverse);
    });
    classes.add<1>(begin, end);
  }
}

struct Divergences {
  double kl_ab = 0, kl_ba = 0, js = 0, tv = 0;
  double mean = 0, square = 0;  // sum p_a (Δ - centre) and its square
};

// With Δ = log p_b - log p_a and phi(Δ) = e^Δ - 1 - Δ: KL(a||b) = sum p_a phi(Δ), KL(b||a) = sum p_b phi(-Δ),
// JS = sum (p_a + p_b)/2 psi(Δ/2) with psi(h) = h tanh h - log cosh h, TV = sum p_a |e^Δ - 1| / 2: no term is negative
// and none is a difference where Δ is small. Up to |Δ| = 1/2 the functions are minimax polynomials (1e-6 relative).
template <class T>
struct Diverge {
  const Row<T>&a, &b;
  double sum_a, sum_b, centre;
  ClassSums& classes;
  Divergences out{};

  Divergences run() {
    const int64_t whole = a.v / BLOCK;
    if (job_has_classes()) a.near() && b.near() ? blocks<false, true>(0, whole) : blocks<true, true>(0, whole);
    else a.near() && b.near() ? blocks<false, false>(0, whole) : blocks<true, false>(0, whole);
    if (whole < a.blocks()) job_has_classes() ? blocks<true, true>(whole, whole + 1) : blocks<true, false>(whole, whole + 1);
    return out;
  }
  bool job_has_classes() const { return classes.job.n_classes > 0; }

  template <bool FAR, bool CLASSES>
  void blocks(int64_t first, int64_t last) {
    const F ma = set(a.max), mb = set(b.max), ia = set(float(1 / sum_a)), ib = set(float(1 / sum_b));
    const F shift = set(float(std::log(sum_b) - std::log(sum_a))), middle = set(float(centre));
    F kl_ab = set(0), kl_ba = kl_ab, js = kl_ab, tv = kl_ab, mean = kl_ab, square = kl_ab;
    for (int64_t k = first; k < last; ++k) {
      const int64_t begin = k * BLOCK, end = a.block_end(k);
      a.fetch_next(begin, end), b.fetch_next(begin, end);
      for_each_pair(a.z, b.z, begin, end, [&](int64_t i, int, F za, F zb) {
        const F xa = below_max<FAR>(za, ma), xb = below_max<FAR>(zb, mb);
        const F pa = exp<FAR>(xa) * ia, pb = exp<FAR>(xb) * ib;
        if constexpr (CLASSES) store(classes.p[0] + (i - begin), pa), store(classes.p[1] + (i - begin), pb);
        const F gap_ab = xb - xa, d = gap_ab - shift, dd = d * d, both_p = pa + pb, centred = gap_ab - middle, pa_centred = pa * centred;
        const F even = fma(dd, fma(dd, set(1.39821969e-3f), set(4.16657910e-2f)), set(0.5f));
        const F odd = d * fma(dd, set(8.38309832e-3f), set(0.166665110f));
        const F phi = dd * (even + odd), phi_back = dd * (even - odd);
        const F psi = dd * fma(dd, fma(dd, set(1.66898364e-3f), set(-1.56187699e-2f)), set(0.124999914f));
        F ab = pa * phi, ba = pb * phi_back, mix = both_p * psi, gap = pa * abs(d + phi);
        const M far = greater(abs(d), set(0.5f));
        if (bits(far)) {
          const F step = pb - pa;
          const F s = min(pa, pb) * reciprocal(max(both_p, set(1e-37f)));  // 1 / (1 + e^|Δ|)
          ab = select(far, step - pa * d, ab), ba = select(far, pb * d - step, ba);
          mix = select(far, both_p * (set(0.693147181f) - s * (minus_log_rest(s) + abs(d))), mix);
          gap = select(far, abs(step), gap);
        }
        kl_ab = kl_ab + ab, kl_ba = kl_ba + ba, js = js + mix, tv = tv + gap;
        mean = mean + pa_centred, square = fma(pa_centred, centred, square);
      });
      if constexpr (CLASSES) classes.add<2>(begin, end);
      if (end % CHUNK == 0 || k + 1 == last) {
        out.kl_ab += sum(kl_ab), out.kl_ba += sum(kl_ba), out.js += sum(js) / 2, out.tv += sum(tv) / 2;
        out.mean += sum(mean), out.square += sum(square);
        kl_ab = kl_ba = js = tv = mean = square = set(0);
      }
    }
  }

  // -log(1 - s) / s on [0, 1/2], within 1e-7; in pairs, since a chain of seven products is what the loop would wait for.
  static F minus_log_rest(F s) {
    const F ss = s * s;
    const F low = fma(fma(s, set(0.272357442f), set(0.331853622f)), ss, fma(s, set(0.500036828f), set(0.999999851f)));
    const F high = fma(fma(s, set(1.18637994f), set(-1.08408923f)), ss, fma(s, set(0.787194732f), set(0.0374123652f)));
    return fma(high, ss * ss, low);
  }
};

}  // namespace ssdfast::SSDFAST_ISA
