// The rows of a job, one pair of rows at a time; the entry of each instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "half_floats.h"
#include "isa.h"
#include "probe_columns.h"
#include "probe_diverge.h"
#include "probe_nucleus.h"
#include "probe_row.h"
#include "probe_stats.h"
#include "probe_sweeps.h"
#include "simd.h"

namespace ssdfast::SSDFAST_ISA {

inline void blank(float* column, int64_t row, int64_t width = 1) {
  std::fill_n(column + row * width, width, NOT_A_NUMBER);
}

inline void blank_model(const Job& job, const ModelColumns& out, int64_t n) {
  for (float* c : {out.lse, out.entropy, out.token_logprob, out.top_mass, out.tail_mass, out.support_entropy}) blank(c, n);
  blank(out.top_logprobs, n, job.top);
  blank(out.class_mass, n, job.n_classes);
  blank(out.lse_T, n, job.n_temperatures);
  out.token_rank[n] = out.nucleus_size[n] = out.support_size[n] = -1;
  std::fill_n(out.top_ids + n * job.top, job.top, -1);
}

inline void blank_pair(const Job& job, int64_t n) {
  const PairColumns& out = job.out_pair;
  for (float* c : {out.kl_base_trained, out.kl_trained_base, out.js, out.tv, out.logratio_var, out.ssd_cov, out.ssd_var, out.ssd_alignment})
    blank(c, n);
  blank(out.trained_logprobs_at_base_top, n, job.top), blank(out.base_logprobs_at_trained_top, n, job.top);
  blank(out.ce_terms, n, 6), blank(out.kept_mass, n, 2);
  out.support_overlap[n] = -1;
}

template <class T>
struct Rows {
  const Job& job;
  Model<T> a, b;
  Powers powers;
  ClassSums classes;

  explicit Rows(const Job& j) : job(j), powers(j), classes(j) {}

  void load(Model<T>& m, const void* logits, int64_t stride, int64_t n, int64_t last) {
    const T* z = static_cast<const T*>(logits) + n * stride;
    m.load(z, job.v, n + 1 < last ? z + stride : nullptr);
  }

  void run(int64_t n, int64_t last) {
    const bool pair = job.b != nullptr;
    const int64_t y = job.token[n];
    load(a, job.a, job.stride_a, n, last);
    if (pair) load(b, job.b, job.stride_b, n, last);
    PairSweep<T> sweep{a.row, b.row, a.sums, b.sums};
    const bool together = pair && job.sweeps == 1 && job.powers.empty() && job.n_classes == 0 && sweep.run();
    Support support_a, support_b;
    const bool good_a = model(a, job.out_a, n, y, together, support_a);
    const bool good_b = pair && model(b, job.out_b, n, y, together, support_b);
    if (good_a && good_b) {
      pair_columns(n, together ? &sweep : nullptr, support_a, support_b);
    } else {
      if (good_a) classes_alone(a, job.out_a, n);
      if (good_b) classes_alone(b, job.out_b, n);
      if (pair) blank_pair(job, n);
    }
  }

  void classes_alone(const Model<T>& m, const ModelColumns& out, int64_t n) {
    if (job.n_classes == 0) return;
    classes.start();
    class_masses(m.row, m.sum, classes);
    write_classes(classes.mass[0], out, n);
  }
  void write_classes(const std::vector<double>& mass, const ModelColumns& out, int64_t n) {
    for (int c = 0; c < job.n_classes; ++c) out.class_mass[n * job.n_classes + c] = float(mass[c]);
  }

  bool model(Model<T>& m, const ModelColumns& out, int64_t n, int64_t y, bool swept, Support& support) {
    if (!(swept ? m.measure_swept(job.top) : m.measure(job.top, powers))) return blank_model(job, out, n), false;
    support = support_of(m, job.eval_sampling);

    out.lse[n] = float(m.row.max + m.log_sum);
    out.entropy[n] = float(m.log_sum - m.sums.weighted / m.sum);
    out.token_logprob[n] = float(m.logp_at(y));
    out.token_rank[n] = rank_of(m.row, value(m.row.z + y), y);
    const size_t k = job.eval_sampling.top_k > 0 ? std::min<size_t>(job.eval_sampling.top_k, m.best.list.size()) : 0;
    double head = 0;
    for (size_t i = k; i-- > 0;) head += std::exp(m.x(i));
    out.top_mass[n] = job.eval_sampling.top_k > 0 ? float(head / m.sum) : 1.f;
    out.tail_mass[n] = job.eval_sampling.top_k > 0 ? float(m.outside(k)) : 0.f;
    out.nucleus_size[n] = nucleus_size(m, job);
    out.support_size[n] = support.cut.size;
    out.support_entropy[n] = float(std::log(support.sum) - support.weighted / support.sum);
    for (int i = 0; i < job.top; ++i) {
      const bool there = size_t(i) < m.best.list.size();
      out.top_ids[n * job.top + i] = there ? m.best.list[i].id : -1;
      out.top_logprobs[n * job.top + i] = there ? float(m.x(i) - m.log_sum) : NEVER;
    }
    for (int t = 0; t < job.n_temperatures; ++t) out.lse_T[n * job.n_temperatures + t] = out.lse[n];  // T = 1
    for (size_t s = 0; s < job.powers.size(); ++s) {
      const Power& p = job.powers[s];
      out.lse_T[n * job.n_temperatures + p.column] = float(double(m.row.max) * p.beta + std::log(powers.sums[s]));
    }
    return true;
  }

  void pair_columns(int64_t n, const PairSweep<T>* one_sweep, const Support& support_a, const Support& support_b) {
    const PairColumns& out = job.out_pair;
    const bool b_forbids = forbids(b.row, a.row), a_forbids = forbids(a.row, b.row);
    const double centre = b_forbids ? 0 : float(typical_gap());
    double kl_ab, kl_ba, mean, square;
    Divergences d;
    if (one_sweep) {
      const double shift = a.log_sum - b.log_sum, mean_d = one_sweep->a_d / a.sums.sum;
      kl_ab = std::max(0.0, mean_d - shift), kl_ba = std::max(0.0, shift - one_sweep->b_d / b.sums.sum);
      mean = -mean_d - centre, square = one_sweep->a_dd / a.sums.sum - mean_d * mean_d + mean * mean;
    } else {
      classes.start();
      d = Diverge<T>{a.row, b.row, a.sum, b.sum, centre, classes}.run();
      write_classes(classes.mass[0], job.out_a, n), write_classes(classes.mass[1], job.out_b, n);
      kl_ab = d.kl_ab, kl_ba = d.kl_ba, mean = d.mean, square = d.square;
    }
    const double logratio_var = b_forbids ? NAN : std::max(0.0, square - mean * mean);
    if (b_forbids) kl_ab = INFINITY;
    if (a_forbids) kl_ba = INFINITY;
    out.kl_base_trained[n] = float(kl_ab), out.kl_trained_base[n] = float(kl_ba);
    out.js[n] = job.sweeps == 1 ? NOT_A_NUMBER : float(d.js);
    out.tv[n] = job.sweeps == 1 ? NOT_A_NUMBER : float(d.tv);
    out.logratio_var[n] = float(logratio_var);
    out.support_overlap[n] = overlap(a, support_a, b, support_b);
    other_at_top(a, b, out.trained_logprobs_at_base_top + n * job.top);
    other_at_top(b, a, out.base_logprobs_at_trained_top + n * job.top);
    self_distillation(n, centre, b_forbids ? NAN : mean, logratio_var);
  }

  // The constant about which the moments of Δ = (x_b - x_a) - shift are taken, so that a small moment is not a difference
  // of large numbers: nearly the mean of x_b - x_a, from a's top list and, for the mass outside it, one block of 64.
  double typical_gap() const {
    double mass = 0, listed = 0;
    for (size_t i = 0; i < a.best.list.size(); ++i) {
      const double p = std::exp(a.x(i)) / a.sum;
      mass += p, listed += p * (b.float_x(a.best.list[i].id) - a.float_x(a.best.list[i].id));  // 0 for the same logits
    }
    const F ma = set(a.row.max), mb = set(b.row.max);
    F weight = set(0), weighted = weight;
    for (int64_t k = 0; k < a.row.blocks(); k += 64)
      for_each_pair(a.row.z, b.row.z, k * BLOCK, a.row.block_end(k), [&](int64_t, int, F za, F zb) {
        const F xa = below_max(za, ma), e = exp(xa);
        weight = weight + e, weighted = fma(e, below_max(zb, mb) - xa, weighted);
      });
    const double outside = sum(weight) > 0 ? sum(weighted) / sum(weight) : listed / mass;
    return listed + (1 - mass) * outside;
  }

  void other_at_top(const Model<T>& model, const Model<T>& other, float* column) {
    for (int i = 0; i < job.top; ++i)
      column[i] = size_t(i) < model.best.list.size() ? float(other.logp_at(model.best.list[i].id)) : NEVER;
  }

  void self_distillation(int64_t n, double centre, double mean, double logratio_var) {
    const PairColumns& out = job.out_pair;
    const double t = job.train_sampling.temperature, beta = 1 / t;
    const Support s = support_of(a, job.train_sampling);
    const SupportSums sums = s.listed ? listed_sums(a, b, s, beta, centre) : wide_sums(a, b, s, beta, centre);
    const double cov = sums.q_delta - mean;
    const double var = job.train_sampling.is_identity() ? 0 : sums.square + outside_support(a, s);
    const double variance = logratio_var * var;
    out.ssd_cov[n] = float(cov), out.ssd_var[n] = float(var);
    out.ssd_alignment[n] = variance > 0 ? float(std::clamp(cov / std::sqrt(variance), -1.0, 1.0)) : NOT_A_NUMBER;
    for (int model = 0; model < 2; ++model) {
      const double log_power = sums.log_sum_scaled[model] - beta * sums.log_sum_x[model];
      // T KL(q || r tempered) = T sum q (log q - log r_T); for the baseline r_T is q.
      const double gap = sums.q_gap - sums.log_sum_scaled[0] + sums.log_sum_scaled[1];
      float* terms = out.ce_terms + (n * 2 + model) * 3;
      terms[0] = float((model == 0 ? a : b).log_sum - sums.log_sum_x[model]);  // finite however small the mass on S
      terms[1] = float(-t * log_power);
      terms[2] = model == 0 ? 0.f : float(t * gap);
      out.kept_mass[n * 2 + model] = float(sums.kept[model]);
    }
    if (b_forbids_support(s)) out.ce_terms[(n * 2 + 1) * 3 + 2] = INFINITY;
  }

  // Whether b forbids a token of the baseline's support.
  bool b_forbids_support(const Support& s) {
    bool forbidden = false;
    if (b.row.some_impossible())
      for_each_inside(a.row, s.cut, [&](int64_t i, M in, F) {
        for (uint32_t lanes = bits(in); lanes; lanes &= lanes - 1) forbidden |= value(b.row.z + i + __builtin_ctz(lanes)) == NEVER;
      });
    return forbidden;
  }
};

// f with a value of the type of the logits.
template <class Fn>
void of_dtype(DType dtype, Fn f) {
  if (dtype == DType::float32) f(float{});
  else if (dtype == DType::bfloat16) f(BF16{});
  else f(FP16{});
}

void rows(const Job& job, int64_t begin, int64_t end) {
  of_dtype(job.dtype, [&](auto z) {
    Rows<decltype(z)> worker(job);
    for (int64_t n = begin; n < end; ++n) worker.run(n, end);
  });
}

}  // namespace ssdfast::SSDFAST_ISA
