// Which instruction sets this processor can run.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace ssdfast {

// The matrix unit, in bf16. Linux gives a process its tiles on request; forked children and new threads inherit them
// (Documentation/arch/x86/xstate.rst).
inline bool runs_amx() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool runs = [] {
    constexpr unsigned BF16_AND_TILES = 1u << 22 | 1u << 24;  // cpuid leaf 7, edx
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & BF16_AND_TILES) == BF16_AND_TILES &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  }();
  return runs;
#else
  return false;
#endif
}

#if defined(__x86_64__)
// clang before 17 does not know the name "f16c" in __builtin_cpu_supports.
inline bool converts_halves() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
#endif

inline bool runs_here(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == "amx") return runs_here("avx512") && runs_amx();
  if (isa == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
  if (isa == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && converts_halves();
#endif
  return isa == "portable";
}

// The instruction set of the statistics: `isa`, the value of SSDFAST_CPU, or the best one if that is empty. "amx" only
// multiplies, and stands for AVX-512 here.
inline std::string resolved(std::string isa) {
  if (isa.empty()) isa = runs_here("avx512") ? "avx512" : runs_here("avx2") ? "avx2" : "portable";
  STD_TORCH_CHECK(runs_here(isa), "this processor cannot run the instruction set '", isa,
                  "' (known: amx, avx512, avx2, portable): unset SSDFAST_CPU to choose the best one");
  return isa == "amx" ? "avx512" : isa;
}

inline bool runs_avx512_bf16() {
#if defined(__x86_64__)
  return runs_here("avx512") && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace ssdfast
