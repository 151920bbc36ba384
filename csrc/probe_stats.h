// The jobs that the operators hand to the rows' code, and the functions of each instruction set.
//
// a is the baseline, b the trained model. Shapes: N rows, V vocabulary, K the length of the top lists.
#pragma once

#include <cstdint>
#include <vector>

namespace ssdfast {

constexpr int BLOCK = 256;  // tokens whose maximum is remembered

enum class DType { float32, bfloat16, float16 };

struct SamplingParams {
  double temperature;
  int64_t top_k;  // 0: off
  double top_p;   // 1: off
  bool is_identity() const { return temperature == 1 && top_k == 0 && top_p == 1; }
};

// The columns of one model, in the order of schema.py; each points at the column's N * width values.
struct ModelColumns {
  float *lse, *entropy, *token_logprob, *top_mass, *tail_mass, *support_entropy, *top_logprobs, *class_mass, *lse_T;
  int64_t *token_rank, *nucleus_size, *support_size, *top_ids;
};

struct PairColumns {
  float *kl_base_trained, *kl_trained_base, *js, *tv, *logratio_var, *ssd_cov, *ssd_var, *ssd_alignment;
  float *trained_logprobs_at_base_top, *base_logprobs_at_trained_top;
  float *ce_terms, *kept_mass;  // [N, 2, 3] and [N, 2]: the columns of a block side by side, the baseline's first
  int64_t* support_overlap;
};

// How to get e^(x beta) of one temperature: a product of two or three powers already at hand, or an exponential.
struct Power {
  float beta;     // 1 / T
  int column;     // which of lse_T
  int factor[3];  // indices into the powers so far (0 is e^x); -1 = none; factor[0] = -1: an exponential
};

struct OtherToken {
  uint8_t place, token_class;  // place: within its BLOCK
};

struct Job {
  DType dtype;
  const void *a, *b;  // b may be null
  int64_t stride_a, stride_b, v;
  const int64_t* token;
  int top, sweeps;
  SamplingParams eval_sampling, train_sampling;
  int n_temperatures;
  std::vector<Power> powers;  // by rising beta
  int n_classes;
  const uint8_t* token_class;               // [V] or null
  int common_class;                         // the one with most tokens
  std::vector<uint64_t> common_class_mask;  // which tokens are of it, a bit each
  std::vector<OtherToken> others;           // the rest, by id
  std::vector<int32_t> others_start;        // where each BLOCK's start
  ModelColumns out_a, out_b;
  PairColumns out_pair;
};

// The slots of a partial state, as in kernels/probe_stats/state.py, which describes them.
enum ModelSlot { MAX, WEIGHTED, AHEAD, POSSIBLE, REST, SUM };
enum PairSlot { A_D, B_D, A_DD, PAIR_SLOTS };
enum DivergenceSlot { KL_AB, KL_BA, JS, TV, GAP, GAP_SQUARED };

// Partial states of vocabulary entries first_id .. first_id + V; tokens count in the whole vocabulary. M models, S slots.
struct StateJob {
  Job job;  // its output columns are unused, and powers[].column counts the rates after the first
  int64_t n, first_id, model_slots;
  const float* token_z;            // [M, N]
  double* slots;                   // [S, N]
  float *list_z, *list_other;      // [M, N, K]
  int64_t* list_ids;
};

struct DivergenceJob {
  Job job;  // logits alone
  int64_t n;
  const double *max, *log_sum, *pivot;  // [2, N], [2, N], [N]
  double* out;                          // [6, N]
};

// The functions of an instruction set, each for rows [begin, end) of a job.
struct Kernels {
  void (*rows)(const Job&, int64_t begin, int64_t end);
  void (*states)(const StateJob&, int64_t begin, int64_t end);
  void (*divergences)(const DivergenceJob&, int64_t begin, int64_t end);
};

namespace avx512 { Kernels kernels(); }
namespace avx2 { Kernels kernels(); }
namespace portable { Kernels kernels(); }

}  // namespace ssdfast
