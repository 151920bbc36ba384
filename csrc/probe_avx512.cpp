// The rows' code in AVX-512.
//
// What every instruction set shares is included before the pragma: the linker keeps one copy of its inline functions,
// which must run on any processor.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "probe_stats.h"
#include "soft_label.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c,bmi,bmi2,popcnt")
#endif
#define SSDFAST_ISA avx512
#define SSDFAST_AVX512 1
#include "rows.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
