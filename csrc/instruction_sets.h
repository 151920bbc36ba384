// What the processor at hand can run.
#pragma once

#include <string>

namespace ssdfast {

inline bool runs_here(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
  if (isa == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
  return isa == "portable";
}

inline bool runs_avx512_bf16() {
#if defined(__x86_64__)
  return runs_here("avx512") && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace ssdfast
