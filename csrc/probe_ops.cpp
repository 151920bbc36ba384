// The operators ssdfast_cpu::probe_*: they unpack their arguments, plan the powers and run the rows on torch's threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "instruction_sets.h"
#include "probe_stats.h"

namespace ssdfast {
namespace {

using torch::stable::Tensor;

Kernels kernels_of(std::string isa) {
  isa = resolved(isa);
#if defined(__x86_64__)
  if (isa == "avx512") return avx512::kernels();
  if (isa == "avx2") return avx2::kernels();
#endif
  return portable::kernels();
}

// For each temperature but 1, how to get e^(x/T): a product of powers already there, where 1/T is the sum of theirs.
void plan_powers(const std::vector<double>& temperatures, Job& job) {
  std::vector<std::pair<double, int>> rates;  // 1/T and its column
  for (size_t i = 0; i < temperatures.size(); ++i)
    if (temperatures[i] != 1) rates.emplace_back(1 / temperatures[i], static_cast<int>(i));
  std::sort(rates.begin(), rates.end());
  job.n_temperatures = static_cast<int>(temperatures.size());
  std::vector<double> known{1.0};
  for (const auto& [beta, column] : rates) {
    Power p{static_cast<float>(beta), column, {-1, -1, -1}};
    const auto matches = [&, target = beta](double sum) { return std::abs(sum - target) < 1e-9 * target; };
    const int n = static_cast<int>(known.size());
    for (int i = 0; i < n && p.factor[0] < 0; ++i)
      for (int j = i; j < n && p.factor[0] < 0; ++j) {
        if (matches(known[i] + known[j])) p.factor[0] = i, p.factor[1] = j;
        for (int k = j; k < n && p.factor[0] < 0; ++k)
          if (matches(known[i] + known[j] + known[k])) p.factor[0] = i, p.factor[1] = j, p.factor[2] = k;
      }
    known.push_back(beta);
    job.powers.push_back(p);
  }
}

// Lists the tokens outside the most common class, without a branch per token. A sample decides which class that is: any
// class gives the right sums.
void sort_classes(Job& job) {
  if (job.n_classes == 0) return;
  std::vector<int64_t> members(job.n_classes);
  for (int64_t i = 0; i < job.v; i += 17) ++members[job.token_class[i]];
  job.common_class = static_cast<int>(std::max_element(members.begin(), members.end()) - members.begin());
  job.common_class_mask.assign(job.v / 64 + 1, 0);
  job.others.resize(job.v + 1);
  int32_t n = 0;
  for (int64_t i = 0; i < job.v; ++i) {
    if (i % BLOCK == 0) job.others_start.push_back(n);
    const bool common = job.token_class[i] == job.common_class;
    job.common_class_mask[i / 64] |= uint64_t{common} << i % 64;
    job.others[n] = {static_cast<uint8_t>(i % BLOCK), job.token_class[i]};
    n += !common;
  }
  job.others_start.push_back(n);
}

// Hands out consecutive columns of a packed buffer, in the order of schema.py.
template <class T>
struct Columns {
  T* next;
  int64_t n;
  T* operator()(int64_t width = 1) {
    T* column = next;
    next += n * width;
    return column;
  }
};

ModelColumns model_columns(Columns<float>& f, Columns<int64_t>& i, const Job& job) {
  ModelColumns out;
  for (float** c : {&out.lse, &out.entropy, &out.token_logprob, &out.top_mass, &out.tail_mass, &out.support_entropy}) *c = f();
  out.top_logprobs = f(job.top), out.class_mass = f(job.n_classes), out.lse_T = f(job.n_temperatures);
  out.token_rank = i(), out.nucleus_size = i(), out.support_size = i(), out.top_ids = i(job.top);
  return out;
}

PairColumns pair_columns(Columns<float>& f, Columns<int64_t>& i, const Job& job) {
  PairColumns out;
  for (float** c : {&out.kl_base_trained, &out.kl_trained_base, &out.js, &out.tv, &out.logratio_var, &out.ssd_cov, &out.ssd_var,
                    &out.ssd_alignment})
    *c = f();
  out.trained_logprobs_at_base_top = f(job.top), out.base_logprobs_at_trained_top = f(job.top);
  out.ce_terms = f(6), out.kept_mass = f(2);
  out.support_overlap = i();
  return out;
}

DType dtype_of(const Tensor& t) {
  using torch::headeronly::ScalarType;
  if (t.scalar_type() == ScalarType::Float) return DType::float32;
  if (t.scalar_type() == ScalarType::BFloat16) return DType::bfloat16;
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Half, "logits must be fp32, bf16 or fp16");
  return DType::float16;
}

// The logits of a job, and what its rows' sums need.
Job job_of(const Tensor& a, const std::optional<Tensor>& b) {
  Job job{};
  job.dtype = dtype_of(a);
  job.a = a.data_ptr(), job.b = b ? b->data_ptr() : nullptr;
  job.stride_a = a.stride(0), job.stride_b = b ? b->stride(0) : 0;
  job.v = a.size(1);
  STD_TORCH_CHECK(job.v <= std::numeric_limits<int32_t>::max(), "a vocabulary of ", job.v, " entries is too large");
  return job;
}

void plan_sums(Job& job, const Tensor& token, const std::optional<Tensor>& token_class, int64_t n_classes, int64_t top,
               int64_t sweeps, const std::vector<double>& temperatures) {
  job.token = static_cast<const int64_t*>(token.data_ptr());
  job.top = static_cast<int>(top), job.sweeps = static_cast<int>(sweeps);
  job.n_classes = static_cast<int>(n_classes);
  job.token_class = token_class ? static_cast<const uint8_t*>(token_class->data_ptr()) : nullptr;
  plan_powers(temperatures, job);
  sort_classes(job);
}

void probe_stats_cpu(const Tensor& a, const std::optional<Tensor>& b, const Tensor& token,
                     const std::optional<Tensor>& token_class, Tensor floats, Tensor ints, int64_t n_classes, int64_t top,
                     int64_t sweeps, const std::vector<double>& temperature_and_p, const std::vector<int64_t>& top_k,
                     const std::vector<double>& temperatures, std::string isa) {
  Job job = job_of(a, b);
  const int64_t n = a.size(0);
  plan_sums(job, token, token_class, n_classes, top, sweeps, temperatures);
  job.eval_sampling = {temperature_and_p[0], top_k[0], temperature_and_p[1]};
  job.train_sampling = {temperature_and_p[2], top_k[1], temperature_and_p[3]};
  Columns<float> f{static_cast<float*>(floats.data_ptr()), n};
  Columns<int64_t> i{static_cast<int64_t*>(ints.data_ptr()), n};
  job.out_a = model_columns(f, i, job);
  if (b) {
    job.out_b = model_columns(f, i, job);
    job.out_pair = pair_columns(f, i, job);
  }
  const Kernels kernels = kernels_of(isa);
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) { kernels.rows(job, begin, end); });
}

void probe_state_cpu(const Tensor& a, const std::optional<Tensor>& b, const Tensor& token, const Tensor& token_z,
                     const std::optional<Tensor>& token_class, Tensor slots, Tensor list_z, Tensor list_ids,
                     std::optional<Tensor> list_other, int64_t first_id, int64_t n_classes, int64_t top, int64_t sweeps,
                     const std::vector<double>& temperatures, std::string isa) {
  StateJob job{job_of(a, b), a.size(0), first_id};
  plan_sums(job.job, token, token_class, n_classes, top, sweeps, temperatures);
  job.model_slots = SUM + 1 + static_cast<int64_t>(temperatures.size()) + n_classes;
  job.token_z = static_cast<const float*>(token_z.data_ptr());
  job.slots = static_cast<double*>(slots.data_ptr());
  job.list_z = static_cast<float*>(list_z.data_ptr());
  job.list_ids = static_cast<int64_t*>(list_ids.data_ptr());
  job.list_other = list_other ? static_cast<float*>(list_other->data_ptr()) : nullptr;
  const Kernels kernels = kernels_of(isa);
  torch::stable::parallel_for(0, job.n, 1, [&](int64_t begin, int64_t end) { kernels.states(job, begin, end); });
}

void probe_divergences_cpu(const Tensor& a, const Tensor& b, const Tensor& max, const Tensor& log_sum, const Tensor& pivot,
                           Tensor out, std::string isa) {
  const auto doubles = [](const Tensor& t) { return static_cast<double*>(t.data_ptr()); };
  const DivergenceJob job{job_of(a, b), a.size(0), doubles(max), doubles(log_sum), doubles(pivot), doubles(out)};
  const Kernels kernels = kernels_of(isa);
  torch::stable::parallel_for(0, job.n, 1, [&](int64_t begin, int64_t end) { kernels.divergences(job, begin, end); });
}

}  // namespace
}  // namespace ssdfast

STABLE_TORCH_LIBRARY(ssdfast_cpu, m) {
  m.def(
      "probe_stats(Tensor a, Tensor? b, Tensor token, Tensor? token_class, Tensor(a!) floats, Tensor(b!) ints, "
      "int n_classes, int top_logprobs, int sweeps, float[] temperature_and_p, int[] top_k, float[] lse_temperatures, str isa) -> ()");
  m.def(
      "probe_state(Tensor a, Tensor? b, Tensor token, Tensor token_z, Tensor? token_class, Tensor(a!) slots, "
      "Tensor(b!) list_z, Tensor(c!) list_ids, Tensor(d!)? list_other, int first_id, int n_classes, int top_logprobs, "
      "int sweeps, float[] lse_temperatures, str isa) -> ()");
  m.def(
      "probe_divergences(Tensor a, Tensor b, Tensor max, Tensor log_sum, Tensor pivot, Tensor(a!) out, str isa) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ssdfast_cpu, CPU, m) {
  m.impl("probe_stats", TORCH_BOX(&ssdfast::probe_stats_cpu));
  m.impl("probe_state", TORCH_BOX(&ssdfast::probe_state_cpu));
  m.impl("probe_divergences", TORCH_BOX(&ssdfast::probe_divergences_cpu));
}
