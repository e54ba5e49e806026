# All options, and their defaults for a build of this repository and for one inside another project.

option(PENSTOCK_BUILD_TESTS "Build the C++ tests (needs GoogleTest)" OFF)
option(PENSTOCK_BUILD_BENCH "Build the C++ benchmarks" OFF)
option(PENSTOCK_BUILD_PYTHON "Build the Python extension module (needs nanobind)" OFF)
option(PENSTOCK_BUILD_FUZZERS "Build the fuzzers (needs clang)" OFF)
option(PENSTOCK_CRASH_POINTS "Compile in the points at which tests kill or stop a process" OFF)
option(PENSTOCK_PRECOMPILE "Precompile the headers that most sources include" OFF)
option(PENSTOCK_WERROR "Treat warnings as errors" OFF)
set(PENSTOCK_SANITIZE "" CACHE STRING "Sanitizers to build with: a list of address, undefined, thread")

set(PENSTOCK_WITH_REDIS AUTO CACHE STRING
    "A second tier for stores, on Redis or Valkey (needs hiredis): ON, OFF, or AUTO where hiredis is")
set_property(CACHE PENSTOCK_WITH_REDIS PROPERTY STRINGS AUTO ON OFF)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
    set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
    get_property(penstock_multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
    if(NOT CMAKE_BUILD_TYPE AND NOT penstock_multi_config)
        set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
    endif()
endif()
