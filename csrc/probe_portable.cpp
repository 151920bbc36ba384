#include "probe_stats.h"
#include "soft_label.h"

#define SSDFAST_ISA portable
#define SSDFAST_AVX2 0
#include "simd_vector.h"
#include "probe_row.h"
#include "probe_nucleus.h"
#include "probe_sweeps.h"
#include "probe_diverge.h"
#include "probe_patterns.h"
#include "probe_columns.h"
#include "probe_rows.h"
#include "probe_state.h"
#include "soft_label_rows.h"
