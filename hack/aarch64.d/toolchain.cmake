# Debian's cross compiler, and the libraries that hack/build-aarch64 lays out in PYSPY_SYSROOT.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

# Kept in the cache, so that a later build may configure anew without the variable.
set(PYSPY_SYSROOT "$ENV{PYSPY_SYSROOT}" CACHE PATH "Root of Debian's packages for arm64")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PYSPY_SYSROOT)
if(NOT EXISTS "${PYSPY_SYSROOT}/usr/include")
  message(FATAL_ERROR "PYSPY_SYSROOT names no folder with headers: build by hack/build-aarch64")
endif()
set(CMAKE_SYSROOT ${PYSPY_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${PYSPY_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${PYSPY_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${PYSPY_SYSROOT}/usr/share/pkgconfig)
