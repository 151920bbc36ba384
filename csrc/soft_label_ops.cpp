// The operator ssdfast_cpu::soft_label_rows.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "instruction_sets.h"
#include "soft_label.h"

namespace ssdfast {
namespace {

using torch::stable::Tensor;

void soft_label_rows(Tensor logits, const Tensor& ids, const Tensor& probs, const std::optional<Tensor>& weight, Tensor loss,
                     double z_loss, double scale, double softcap, bool bf16, std::string isa) {
  const SoftLabelJob job{static_cast<float*>(logits.data_ptr()),
                         logits.size(1),
                         logits.stride(0),
                         ids.size(1),
                         static_cast<const int64_t*>(ids.data_ptr()),
                         static_cast<const float*>(probs.data_ptr()),
                         weight ? static_cast<const float*>(weight->data_ptr()) : nullptr,
                         static_cast<float*>(loss.data_ptr()),
                         z_loss,
                         static_cast<float>(scale),
                         static_cast<float>(softcap),
                         bf16};
  STD_TORCH_CHECK(!bf16 || 2 * (job.stride - job.v) >= ZEROS_BEHIND_ROW, "no room behind the rows");
  isa = resolved(isa);
  torch::stable::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
#if defined(__x86_64__)
    if (isa == "avx512") return avx512::soft_label_rows(job, begin, end);
    if (isa == "avx2") return avx2::soft_label_rows(job, begin, end);
#endif
    portable::soft_label_rows(job, begin, end);
  });
}

}  // namespace
}  // namespace ssdfast

STABLE_TORCH_LIBRARY_FRAGMENT(ssdfast_cpu, m) {
  m.def(
      "soft_label_rows(Tensor(a!) logits, Tensor ids, Tensor probs, Tensor? weight, Tensor(b!) loss, float z_loss, "
      "float scale, float softcap, bool bf16, str isa) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ssdfast_cpu, CPU, m) { m.impl("soft_label_rows", TORCH_BOX(&ssdfast::soft_label_rows)); }
