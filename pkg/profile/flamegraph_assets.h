/* flamegraph.css and flamegraph.js as bytes; made by CMakeLists.txt. */
#pragma once

#include <stddef.h>

extern const unsigned char flamegraph_css[], flamegraph_js[];
extern const size_t flamegraph_css_len, flamegraph_js_len;
