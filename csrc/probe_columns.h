// From sums and top lists to columns, one row at a time, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "half_floats.h"
#include "isa.h"
#include "probe_nucleus.h"
#include "probe_patterns.h"
#include "probe_row.h"
#include "probe_stats.h"
#include "probe_sweeps.h"
#include "simd.h"

namespace ssdfast::SSDFAST_ISA {

// One model's row and everything that its columns are computed from.
template <class T>
struct Model {
  std::vector<float> block_max;
  Row<T> row{nullptr, 0, nullptr, block_max};
  Candidates best;
  ModelSums sums;
  Patterns<T> patterns;
  std::vector<float> inside_bracket;  // memory of the search for a long nucleus
  double low;            // sum e^x over the tokens outside the top list
  double sum, log_sum;  // over the row

  void load(const T* z, int64_t v, const T* next) { row.z = z, row.v = v, row.next = next, row.max = NEVER, row.min = -NEVER; }

  // One pass over the row; false if it is not usable.
  bool measure(int top, Powers& powers) {
    if constexpr (sizeof(T) == 2) {
      patterns.count(row);
      if (!row.usable()) return false;
      patterns.sums(row, sums, powers);
    } else {
      sweep(row, sums, powers);
      if (!row.usable()) return false;
    }
    collect(row, top, best);
    if constexpr (sizeof(T) == 2) low = patterns.sum_outside(row, best.list);
    else low = sum_outside();
    return finish(), true;
  }
  // The same from the sums of a pair sweep.
  bool measure_swept(int top) {
    if (!row.usable()) return false;
    collect(row, top, best);
    low = sum_outside();
    return finish(), true;
  }

  // Whole blocks, but for those that hold a token of the list: their other tokens one by one.
  double sum_outside() const {
    if (best.list.size() < size_t(best.top)) return 0;
    const Token& last = best.list.back();
    const Cut cut{best.top, last.z, last.id};
    const F m = set(row.max);
    double total = 0;
    for (int64_t k = 0; k < row.blocks(); ++k) {
      if (row.block_max[k] < last.z) {
        const float shift = sums.block_shift[k];
        total += shift == row.max ? double(sums.block_sum[k]) : sums.block_sum[k] * std::exp(double(shift) - row.max);
        continue;
      }
      F rest = set(0);
      for_each(row.z, k * BLOCK, row.block_end(k), [&](int64_t i, int, F z) {
        rest = add_if(negate(cut.inside(z, i)), rest, exp(below_max(z, m)));
      });
      total += SSDFAST_ISA::sum(rest);
    }
    return total;
  }
  void finish() {
    double rest = low;
    for (size_t i = best.list.size(); i-- > 1;) rest += std::exp(x(i));
    sum = 1 + rest, log_sum = std::log1p(rest);
  }

  double x(size_t i) const { return double(best.list[i].z) - row.max; }
  double x_at(int64_t id) const { return double(value(row.z + id)) - row.max; }
  // As the vector code rounds it.
  float float_x(int64_t id) const { return std::max(FLOOR, value(row.z + id) - row.max); }
  double logp_at(int64_t id) const { return x_at(id) - log_sum; }
  // Mass outside the first n of the top list.
  double outside(size_t n) const {
    double rest = low;
    for (size_t i = best.list.size(); i-- > n;) rest += std::exp(x(i));
    return rest / sum;
  }
  // The shortest prefix whose sum of e^(x beta) reaches `target`, of `total`.
  Prefix prefix(double beta, double target, double total) {
    if constexpr (sizeof(T) == 2) return patterns.find_prefix(row, beta, target);
    else return find_prefix(row, beta, target, total, inside_bracket);
  }
};

// The tokens that sampling parameters can draw, all those up to the cut, with sums of u = e^(x / T) over them.
struct Support {
  Cut cut;
  bool listed;  // they are the first cut.size of the top list
  double sum, weighted;  // of u, and of u x / T
};

// Sums over the tokens inside a cut; f(first id, mask, x) adds to them.
template <class T, class Fn>
void for_each_inside(const Row<T>& row, const Cut& cut, Fn f) {
  const F m = set(row.max);
  for (int64_t k = 0; k < row.blocks(); ++k) {
    if (row.block_max[k] < cut.z) continue;
    for_each(row.z, k * BLOCK, row.block_end(k), [&](int64_t i, int, F z) {
      const M inside = both(cut.inside(z, i), greater(z, set(NEVER)));
      if (bits(inside)) f(i, inside, below_max(z, m));
    });
  }
}

template <class T>
Support support_of(Model<T>& model, const SamplingParams& d) {
  const auto& list = model.best.list;
  const double beta = 1 / d.temperature;
  const size_t n = d.top_k > 0 ? std::min<size_t>(d.top_k, list.size()) : list.size();
  const bool complete = d.top_k > 0 || list.size() < size_t(model.best.top);  // the list holds all survivors
  double total = 0;
  if (complete) {
    for (size_t i = 0; i < n; ++i) total += std::exp(model.x(i) * beta);
  } else {
    for_each_inside(model.row, Cut{0, NEVER, -1}, [&](int64_t, M, F x) { total += SSDFAST_ISA::sum(exp(x * float(beta))); });
  }
  const double target = d.top_p * total;
  Support s{{0, NEVER, -1}, true, 0, 0};
  for (size_t i = 0; i < n; ++i) {
    const double u = std::exp(model.x(i) * beta);
    s.sum += u, s.weighted += u * model.x(i) * beta;
    s.cut = {int64_t(i + 1), list[i].z, list[i].id};
    if (d.top_p < 1 && s.sum >= target) return s;
  }
  if (complete) return s;
  s = {{count_possible(model.row), NEVER, -1}, false, 0, 0};
  if (d.top_p < 1) {
    const Prefix p = model.prefix(beta, target, total);
    s.cut = {p.size, p.z, nth_equal(model.row, p.z, p.ties)};
  }
  for_each_inside(model.row, s.cut, [&](int64_t, M in, F x) {
    const F scaled = x * float(beta), u = keep(in, exp(scaled));
    s.sum += SSDFAST_ISA::sum(u), s.weighted += SSDFAST_ISA::sum(u * scaled);
  });
  return s;
}

// Sums over the support S of the baseline for the columns of self-distillation; q = u / sum.
struct SupportSums {
  double q_delta = 0, kept[2] = {0, 0}, square = 0;  // sum q (Δ - centre), mass, sum (q - p_a)^2 / p_a
  double log_sum_x[2], log_sum_scaled[2];             // logsumexp over S of x and of x / T, for a and b
  double q_gap = 0;                                   // sum q (x_a - x_b) / T
};

// (q - p)² / p, as the squared difference of q / sqrt(p) and sqrt(p): right however small p is.
inline double squared_ratio(double log_q, double log_p) {
  const double root = std::exp(log_q - log_p / 2) - std::exp(log_p / 2);
  return root * root;
}

template <class T>
SupportSums listed_sums(const Model<T>& a, const Model<T>& b, const Support& s, double beta, double centre) {
  SupportSums out;
  const size_t n = static_cast<size_t>(s.cut.size);
  const double log_sum_q = std::log(s.sum);
  double xb_max = NEVER, sum_b = 0, sum_b_scaled = 0, sum_a = 0;
  for (size_t i = 0; i < n; ++i) xb_max = std::max(xb_max, b.x_at(a.best.list[i].id));
  for (size_t i = 0; i < n; ++i) {
    const double xa = a.x(i), xb = b.x_at(a.best.list[i].id), q = std::exp(xa * beta) / s.sum;
    const double pa = std::exp(xa - a.log_sum);
    out.q_delta += q * ((b.float_x(a.best.list[i].id) - a.float_x(a.best.list[i].id)) - centre);
    out.square += squared_ratio(xa * beta - log_sum_q, xa - a.log_sum);
    out.kept[0] += pa, out.kept[1] += std::exp(xb - b.log_sum);
    out.q_gap += q * (xa - xb) * beta;
    sum_a += std::exp(xa), sum_b += std::exp(xb - xb_max), sum_b_scaled += std::exp((xb - xb_max) * beta);
  }
  const bool forbidden = xb_max == NEVER;  // all of S
  out.log_sum_x[0] = std::log(sum_a), out.log_sum_x[1] = forbidden ? NEVER : std::log(sum_b) + xb_max;
  out.log_sum_scaled[0] = log_sum_q, out.log_sum_scaled[1] = forbidden ? NEVER : std::log(sum_b_scaled) + xb_max * beta;
  return out;
}

// The sum of (q - p_a)² / p_a over S.
template <class T>
double wide_square(const Model<T>& a, const Support& s, double beta) {
  const double log_sum_q = std::log(s.sum);
  double square = 0;
  if (beta < 0.5) {  // q / sqrt(p) grows where p falls, and may be more than a float holds
    for_each_inside(a.row, s.cut, [&](int64_t i, M in, F) {
      for (uint32_t lanes = bits(in); lanes; lanes &= lanes - 1) {
        const double x = a.x_at(i + __builtin_ctz(lanes));
        square += squared_ratio(x * beta - log_sum_q, x - a.log_sum);
      }
    });
    return square;
  }
  const F rate = set(float(beta - 0.5)), start = set(float(a.log_sum / 2 - log_sum_q));  // at most log(V) / 2: no overflow
  const F half = set(0.5f), log_sum_a = set(float(a.log_sum));
  for_each_inside(a.row, s.cut, [&](int64_t, M in, F x) {
    const F root = exp(fma(x, rate, start)) - exp((x - log_sum_a) * half);
    square += sum(keep(in, root * root));
  });
  return square;
}

template <class T>
SupportSums wide_sums(const Model<T>& a, const Model<T>& b, const Support& s, double beta_, double centre) {
  SupportSums out;
  const F mb = set(b.row.max), beta = set(float(beta_)), iq = set(float(1 / s.sum));
  const F shift = set(float(centre));
  const auto xb_at = [&](int64_t i) {
    const int n = static_cast<int>(std::min<int64_t>(W, a.row.v - i));
    return below_max(n == W ? load(b.row.z + i) : load_padded(b.row.z + i, n), mb);
  };
  F best_b = set(FLOOR);  // b may have its own mass far from here
  for_each_inside(a.row, s.cut, [&](int64_t i, M in, F) { best_b = max(select(in, xb_at(i), set(FLOOR)), best_b); });
  const float top_b = max_lane(best_b);
  const F top = set(top_b);
  double sum_a = 0, sum_b = 0, sum_b_scaled = 0;
  for_each_inside(a.row, s.cut, [&](int64_t i, M in, F xa) {
    const F xb = xb_at(i), below = max(set(FLOOR), xb - top);
    const M there = both(in, greater(xb, set(FLOOR)));
    const F ea = exp(xa), eb = exp(below), q = keep(in, exp(xa * beta) * iq);
    out.q_delta += sum(q * ((xb - xa) - shift));
    out.q_gap += sum(q * (xa - xb));
    sum_a += sum(keep(in, ea)), sum_b += sum(keep(there, eb)), sum_b_scaled += sum(keep(there, exp(below * beta)));
  });
  out.square = wide_square(a, s, beta_);
  out.q_gap *= beta_;
  out.kept[0] = sum_a / a.sum, out.kept[1] = sum_b * std::exp(double(top_b)) / b.sum;
  out.log_sum_x[0] = std::log(sum_a), out.log_sum_x[1] = std::log(sum_b) + top_b;
  out.log_sum_scaled[0] = std::log(s.sum), out.log_sum_scaled[1] = std::log(sum_b_scaled) + top_b * beta_;
  return out;
}

template <class T>
double outside_support(const Model<T>& a, const Support& s) {
  if (s.listed) return a.outside(static_cast<size_t>(s.cut.size));
  const F m = set(a.row.max);
  double rest = 0;
  for_each(a.row.z, 0, a.row.v, [&](int64_t i, int, F z) {
    rest += sum(keep(negate(s.cut.inside(z, i)), exp(below_max(z, m))));
  });
  return rest / a.sum;
}

template <class T>
int64_t overlap(const Model<T>& a, const Support& sa, const Model<T>& b, const Support& sb) {
  int64_t n = 0;
  if (sa.listed) {
    for (int64_t i = 0; i < sa.cut.size; ++i) {
      const int64_t id = a.best.list[i].id;
      const float z = value(b.row.z + id);
      n += z != NEVER && sb.cut.inside(z, id);
    }
    return n;
  }
  if (sb.listed) return overlap(b, sb, a, sa);
  for_each_pair(a.row.z, b.row.z, 0, a.row.v, [&](int64_t i, int, F za, F zb) {
    const M possible = both(greater(za, set(NEVER)), greater(zb, set(NEVER)));
    n += __builtin_popcount(bits(both(possible, both(sa.cut.inside(za, i), sb.cut.inside(zb, i)))));
  });
  return n;
}

template <class T>
int64_t nucleus_size(Model<T>& model, const Job& job) {
  const auto& list = model.best.list;
  const double target = job.eval_sampling.top_p * model.sum;
  double reached = 0;
  if (job.eval_sampling.top_p < 1)
    for (size_t i = 0; i < list.size(); ++i)
      if ((reached += std::exp(model.x(i))) >= target) return int64_t(i + 1);
  if (list.size() < size_t(job.top)) return int64_t(list.size());
  if (job.eval_sampling.top_p == 1) {
    const int64_t n = count_possible(model.row);
    return job.sweeps == 1 && n > job.top ? -1 : n;
  }
  return job.sweeps == 1 ? -1 : model.prefix(1, target, model.sum).size;
}

}  // namespace ssdfast::SSDFAST_ISA
