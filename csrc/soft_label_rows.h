// A row of logits z with sparse labels q: its loss, and in its place the gradient in what the head multiplied out.
//
// Three passes: maximum, sum of exponentials, gradient; a row of 150,000 logits stays in the L2 cache between them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "half_floats.h"
#include "isa.h"
#include "probe_row.h"
#include "simd.h"
#include "soft_label.h"

namespace ssdfast::SSDFAST_ISA {

// Exponentials that float32 lanes add up before a double does. Few: beside the likeliest token's 1 a lane loses what is
// below 6e-8, and all of the row's probabilities are that much too large.
constexpr int64_t SUMMED = 128;

// Writes n of the W lanes; a bf16 rounded to nearest.
inline void store_some(float* to, F x, int n) {
  if (n == W) return store(to, x);
  float lanes[W];
  store(lanes, x);
  std::memcpy(to, lanes, n * sizeof(float));
}
inline uint16_t rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1);
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : nearest >> 16);
}
inline void store_some(BF16* to, F x, int n) {
  float lanes[W];
  uint16_t halves[W];
  store(lanes, x);
  for (int i = 0; i < W; ++i) halves[i] = rounded(lanes[i]);
  if (n == W) std::memcpy(to, halves, sizeof halves);
  else std::memcpy(to, halves, n * sizeof(uint16_t));
}
inline void store_one(float* to, float x) { *to = x; }
inline void store_one(BF16* to, float x) { to->bits = rounded(x); }

// d logit / d product at a logit: the slope of scale and soft-cap. It is 0 for a forbidden token, -inf.
inline double slope(double z, const SoftLabelJob& job) {
  if (job.softcap == 0) return job.scale;
  const double t = z / job.softcap;
  return z == NEVER ? 0 : job.scale * (1 - t * t);
}

// Common to all of a row's gradients: e^(z - max) * factor is the weighted softmax.
struct Softmax {
  double max, factor;
};

template <bool SOFTCAP, class T>
void write_softmax(const float* z, T* to, const Softmax& row, const SoftLabelJob& job) {
  const F max = set(static_cast<float>(row.max)), factor = set(static_cast<float>(row.factor * job.scale));
  const F zero = set(0.f), one = set(1.f);
  const F per_cap = set(SOFTCAP ? 1 / job.softcap : 0.f);
  // Written where it was read: a bf16 lies before the float that it came from.
  for_each(z, 0, job.v, [&](int64_t i, int n, F x) {
    const F e = exp(x - max);
    F gradient = e * factor;
    if constexpr (SOFTCAP) {
      const F t = x * per_cap;
      gradient = select(equal(e, zero), zero, gradient * (one - t * t));
    }
    store_some(to + i, gradient, n);
  });
}

// The gradients of labelled tokens, most of the whole, computed again and in double: a softmax close to q that is rounded
// to bf16 before q is subtracted would leave noise. z_label: [K], read before the softmax overwrote them.
template <class T>
void write_labels(T* to, const float* z_label, const Softmax& row, const int64_t* ids, const float* probs, float weight,
                  const SoftLabelJob& job) {
  for (int64_t k = 0; k < job.k; ++k) {
    if (probs[k] == 0) continue;
    double q = 0;  // of all slots that name this token
    for (int64_t j = 0; j < job.k; ++j) q += probs[j] != 0 && ids[j] == ids[k] ? probs[j] : 0;
    const double softmax = std::exp(z_label[k] - row.max) * row.factor;
    store_one(to + ids[k], static_cast<float>((softmax - weight * q) * slope(z_label[k], job)));
  }
}

template <class T>
void write_gradient(float* z, const float* z_label, const Softmax& row, const int64_t* ids, const float* probs, float weight,
                    const SoftLabelJob& job) {
  T* to = reinterpret_cast<T*>(z);
  if (job.softcap == 0) write_softmax<false>(z, to, row, job);
  else write_softmax<true>(z, to, row, job);
  write_labels(to, z_label, row, ids, probs, weight, job);
  if constexpr (sizeof(T) == 2) std::memset(to + job.v, 0, ZEROS_BEHIND_ROW * sizeof(T));
}

void soft_label_rows(const SoftLabelJob& job, int64_t begin, int64_t end) {
  std::vector<float> z_label(job.k);
  for (int64_t b = begin; b < end; ++b) {
    float* z = job.logits + b * job.stride;
    const int64_t* ids = job.ids + b * job.k;
    const float* probs = job.probs + b * job.k;
    F lanes_max = set(NEVER);
    for_each(z, 0, job.v, [&](int64_t, int, F x) { lanes_max = max(x, lanes_max); });  // NaN shows in the sum
    const float row_max = max_lane(lanes_max);
    double sum = 0;
    for (int64_t first = 0; first < job.v; first += SUMMED) {
      F lanes = set(0.f);
      for_each(z, first, std::min(job.v, first + SUMMED), [&](int64_t, int, F x) { lanes = lanes + exp(x - set(row_max)); });
      sum += SSDFAST_ISA::sum(lanes);
    }
    const double log_sum = std::log(sum), lse = row_max + log_sum;
    double mass = 0, loss = job.z_loss * lse * lse;
    for (int64_t k = 0; k < job.k; ++k) {
      if (probs[k] == 0) continue;
      z_label[k] = z[ids[k]];
      mass += probs[k];
      loss += probs[k] * (row_max - z_label[k] + log_sum);
    }
    job.loss[b] = static_cast<float>(loss);
    if (!job.weight) continue;
    const float weight = job.weight[b];
    const Softmax row{row_max, weight * (mass + 2 * job.z_loss * lse) / sum};
    if (job.bf16) write_gradient<BF16>(z, z_label.data(), row, ids, probs, weight, job);
    else write_gradient<float>(z, z_label.data(), row, ids, probs, weight, job);
  }
}

}  // namespace ssdfast::SSDFAST_ISA
