/* The map's hash, apart so that it can be held against known values. */
#pragma once

#include <stdint.h>

#include "base/str.h"

uint64_t map_siphash13(const uint64_t key[2], struct str s);
