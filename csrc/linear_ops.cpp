// The operator ssdfast_cpu::linear_logits.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "instruction_sets.h"
#include "linear_logits.h"

namespace ssdfast {
namespace {

using torch::stable::Tensor;

// The instruction set that multiplies, or "" for none. `isa` is SSDFAST_CPU: forcing another one also forces its product,
// or that of the next lower one that has a product of this dtype.
std::string multiplies_in(bool bf16, std::string isa) {
  const bool any = isa.empty();
#if defined(SSDFAST_HAS_AMX)
  if (bf16 && (any || isa == "amx") && runs_here("amx")) return "amx";
#endif
  if ((any || isa == "amx" || isa == "avx512") && (bf16 ? runs_avx512_bf16() : runs_here("avx512"))) return "avx512";
  return isa != "portable" && runs_here("avx2") ? "avx2" : "";
}

// All panels, by as many threads as torch has.
void run(const LinearJob& job, const Product& product) {
  std::vector<uint32_t> packed(product.packed_size(job));
  product.pack_hidden(job, packed.data());
  torch::stable::parallel_for(0, (job.v + product.panel - 1) / product.panel, 1,
                              [&](int64_t begin, int64_t end) { product.panels(job, packed.data(), begin, end); });
}

// out[N, V] = hidden[N, H] . weight[V, H] transposed; unit stride along H and along V.
void linear_logits(const Tensor& hidden, const Tensor& weight, Tensor out, std::string isa) {
#if defined(__x86_64__)
  const int64_t halves = hidden.scalar_type() == torch::headeronly::ScalarType::Float ? 2 : 1;
  const LinearJob job{static_cast<const uint16_t*>(hidden.data_ptr()),
                      static_cast<const uint16_t*>(weight.data_ptr()),
                      hidden.size(0),
                      weight.size(0),
                      hidden.size(1) * halves,
                      hidden.stride(0) * halves,
                      weight.stride(0) * halves,
                      static_cast<float*>(out.data_ptr()),
                      out.stride(0),
                      halves == 1};
  const std::string way = multiplies_in(job.bf16, isa);
#if defined(SSDFAST_HAS_AMX)
  if (way == "amx") return run(job, amx::PRODUCT);
#endif
  if (way == "avx512") return run(job, avx512::PRODUCT);
  if (way == "avx2") return run(job, avx2::PRODUCT);
#endif
  STD_TORCH_CHECK(false, "this processor has neither AVX-512 nor AVX2");
}

}  // namespace
}  // namespace ssdfast

STABLE_TORCH_LIBRARY_FRAGMENT(ssdfast_cpu, m) {
  m.def("linear_logits(Tensor hidden, Tensor weight, Tensor(a!) out, str isa) -> ()");
  m.def("multiplies_in(bool bf16, str isa) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(ssdfast_cpu, CPU, m) { m.impl("linear_logits", TORCH_BOX(&ssdfast::linear_logits)); }
STABLE_TORCH_LIBRARY_IMPL(ssdfast_cpu, CompositeExplicitAutograd, m) {
  m.impl("multiplies_in", TORCH_BOX(&ssdfast::multiplies_in));
}
