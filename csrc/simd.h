// W float lanes in the instruction set of isa.h.
#pragma once

#include "isa.h"

#if SSDFAST_AVX512
#include "simd_avx512.h"
#else
#include "simd_vector.h"
#endif
