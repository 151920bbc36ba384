// The instruction set that the rows' code is compiled for: SSDFAST_ISA, its namespace, and one flag that is 1.
//
// A source file defines them before it includes the rows' code; without them it is compiled for any processor.
#pragma once

#ifndef SSDFAST_ISA
#define SSDFAST_ISA portable
#endif
#ifndef SSDFAST_AVX2
#define SSDFAST_AVX2 0
#endif
#ifndef SSDFAST_AVX512
#define SSDFAST_AVX512 0
#endif
