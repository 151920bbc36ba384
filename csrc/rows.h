// All of the rows' code, once for each instruction set.
#pragma once

#include "probe_rows.h"
#include "probe_state.h"
#include "soft_label_rows.h"
