/* Functions that no line of the project may call: they cannot be given a bound. Included by
 * base/err.h, and so by everything. */
#pragma once

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atoll gets
