// The partial states of a part of the vocabulary, and what it adds to each divergence.
#pragma once

#include <cmath>
#include <cstdint>

#include "half_floats.h"
#include "isa.h"
#include "probe_columns.h"
#include "probe_diverge.h"
#include "probe_row.h"
#include "probe_rows.h"
#include "probe_stats.h"
#include "probe_sweeps.h"

namespace ssdfast::SSDFAST_ISA {

template <class T>
struct StateRows : Rows<T> {
  const StateJob& out;
  explicit StateRows(const StateJob& s) : Rows<T>(s.job), out(s) {}

  void run(int64_t n, int64_t last) {
    const Job& job = this->job;
    const bool pair = job.b != nullptr;
    Model<T>&a = this->a, &b = this->b;
    this->load(a, job.a, job.stride_a, n, last);
    if (pair) this->load(b, job.b, job.stride_b, n, last);
    PairSweep<T> sweep{a.row, b.row, a.sums, b.sums};
    const bool together = pair && job.sweeps == 1 && sweep.run();
    model(0, a, b, n, together);
    if (!pair) return;
    model(1, b, a, n, together);
    if (job.sweeps == 1) pair_sums(n, sweep, together);
  }

  void model(int index, Model<T>& m, const Model<T>& other, int64_t n, bool swept) {
    const Job& job = this->job;
    const auto slot = [&](int s) -> double& { return out.slots[(index * out.model_slots + s) * out.n + n]; };
    const bool usable = swept && job.powers.empty() ? m.measure_swept(job.top) : m.measure(job.top, this->powers);
    const int64_t first = (index * out.n + n) * job.top;
    const int64_t listed = usable ? static_cast<int64_t>(m.best.list.size()) : 0;
    for (int64_t i = 0; i < job.top; ++i) {
      const bool there = i < listed;
      out.list_z[first + i] = there ? m.best.list[i].z : NEVER;
      out.list_ids[first + i] = there ? out.first_id + m.best.list[i].id : -1;
      if (job.b) out.list_other[first + i] = there ? value(other.row.z + m.best.list[i].id) : NEVER;
    }
    // A row without a token that can occur is an empty part; one with NaN or +inf is invalid.
    const double fill = usable || m.row.max == NEVER ? 0 : NAN;
    for (int s = 0; s < out.model_slots; ++s) slot(s) = fill;
    slot(MAX) = fill == 0 ? m.row.max : NAN;
    if (fill == 0) slot(AHEAD) = double(rank_of(m.row, out.token_z[index * out.n + n], job.token[n] - out.first_id));
    if (!usable) return;
    slot(WEIGHTED) = m.sums.weighted, slot(POSSIBLE) = double(count_possible(m.row));
    slot(REST) = m.low, slot(SUM) = m.sum;
    for (size_t s = 0; s < job.powers.size(); ++s) slot(SUM + 1 + job.powers[s].column) = this->powers.sums[s];
    if (job.n_classes == 0) return;
    this->classes.start();
    class_masses(m.row, 1, this->classes);
    for (int c = 0; c < job.n_classes; ++c) slot(out.model_slots - job.n_classes + c) = this->classes.mass[0][c];
  }

  void pair_sums(int64_t n, const PairSweep<T>& sweep, bool swept) {
    const Row<T>&a = this->a.row, &b = this->b.row;
    const auto slot = [&](int s) -> double& { return out.slots[(2 * out.model_slots + s) * out.n + n]; };
    const auto bad = [](const Row<T>& row) { return !row.usable() && row.max != NEVER; };
    if (bad(a) || bad(b)) {
      for (int s = 0; s < PAIR_SLOTS; ++s) slot(s) = NAN;
      return;
    }
    slot(A_D) = forbids(b, a) ? -INFINITY : swept ? -sweep.a_d : 0;
    slot(B_D) = forbids(a, b) ? -INFINITY : swept ? -sweep.b_d : 0;
    slot(A_DD) = swept ? sweep.a_dd : 0;
  }
};

void states(const StateJob& job, int64_t begin, int64_t end) {
  of_dtype(job.job.dtype, [&](auto z) {
    StateRows<decltype(z)> worker(job);
    for (int64_t n = begin; n < end; ++n) worker.run(n, end);
  });
}

template <class T>
Divergences divergences_of(Model<T>& a, Model<T>& b, const double max[2], const double log_sum[2], double pivot, ClassSums& classes) {
  a.row.scan(0, a.row.v), b.row.scan(0, b.row.v);
  const bool b_forbids = forbids(b.row, a.row), a_forbids = forbids(a.row, b.row);
  a.row.max = float(max[0]), b.row.max = float(max[1]);  // of the whole vocabulary
  Divergences d = Diverge<T>{a.row, b.row, std::exp(log_sum[0]), std::exp(log_sum[1]), pivot, classes}.run();
  if (b_forbids) d.kl_ab = INFINITY;
  if (a_forbids) d.kl_ba = INFINITY;
  return d;
}

void divergences(const DivergenceJob& job, int64_t begin, int64_t end) {
  of_dtype(job.job.dtype, [&](auto z) {
    Rows<decltype(z)> rows(job.job);
    for (int64_t n = begin; n < end; ++n) {
      rows.load(rows.a, job.job.a, job.job.stride_a, n, end), rows.load(rows.b, job.job.b, job.job.stride_b, n, end);
      const double max[2] = {job.max[n], job.max[job.n + n]}, log_sum[2] = {job.log_sum[n], job.log_sum[job.n + n]};
      Divergences d{NAN, NAN, NAN, NAN, NAN, NAN};
      if (!std::isnan(log_sum[0] + log_sum[1])) d = divergences_of(rows.a, rows.b, max, log_sum, job.pivot[n], rows.classes);
      const auto slot = [&](int s) -> double& { return job.out[s * job.n + n]; };
      slot(KL_AB) = d.kl_ab, slot(KL_BA) = d.kl_ba, slot(JS) = d.js, slot(TV) = d.tv;
      slot(GAP) = d.mean, slot(GAP_SQUARED) = d.square;
    }
  });
}

Kernels kernels() { return {rows, states, divergences}; }

}  // namespace ssdfast::SSDFAST_ISA
