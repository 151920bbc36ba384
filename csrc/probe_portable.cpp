// The rows' code for any processor.
#include "rows.h"
