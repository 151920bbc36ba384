#include "probe_stats.h"
#include "soft_label.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c,bmi,bmi2,popcnt")
#endif
#define SSDFAST_ISA avx512
#include "simd_avx512.h"
#include "probe_row.h"
#include "probe_nucleus.h"
#include "probe_sweeps.h"
#include "probe_diverge.h"
#include "probe_patterns.h"
#include "probe_columns.h"
#include "probe_rows.h"
#include "probe_state.h"
#include "soft_label_rows.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
