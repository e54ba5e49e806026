# The library: every source under src/<floor>/, one static archive that may be linked into a shared
# object. A source named after a system is compiled on that system only; one that ends in _hiredis
# if hiredis is found, and otherwise its counterpart that ends in _unavailable.

configure_file(cmake/version.hpp.in "${PROJECT_BINARY_DIR}/generated/penstock/version.hpp" @ONLY)

file(GLOB_RECURSE penstock_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/*.cpp")
if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
    list(FILTER penstock_sources EXCLUDE REGEX "_linux\\.cpp$")
endif()
if(NOT APPLE)
    list(FILTER penstock_sources EXCLUDE REGEX "_macos\\.cpp$")
endif()
if(WIN32)
    list(FILTER penstock_sources EXCLUDE REGEX "_posix\\.cpp$")
else()
    list(FILTER penstock_sources EXCLUDE REGEX "_windows\\.cpp$")
endif()
if(PENSTOCK_HAS_REDIS)
    list(FILTER penstock_sources EXCLUDE REGEX "_unavailable\\.cpp$")
else()
    list(FILTER penstock_sources EXCLUDE REGEX "_hiredis\\.cpp$")
endif()

find_package(Threads REQUIRED)

add_library(penstock STATIC ${penstock_sources})
add_library(penstock::penstock ALIAS penstock)

target_compile_features(penstock PUBLIC cxx_std_20)
target_include_directories(penstock
    PUBLIC
        $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
        $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>
        $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE "${PROJECT_SOURCE_DIR}/src")
target_link_libraries(penstock PUBLIC Threads::Threads)
if(PENSTOCK_HAS_REDIS)
    target_link_libraries(penstock PRIVATE penstock::hiredis)
endif()
if(PENSTOCK_CRASH_POINTS)
    target_compile_definitions(penstock PUBLIC PENSTOCK_CRASH_POINTS=1)
endif()
penstock_warnings(penstock)
penstock_precompile_optimized(penstock ${PENSTOCK_COMMON_HEADERS})

# For targets that use internal headers: tests, benchmarks, fuzzers.
function(penstock_internal target)
    target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${target} PRIVATE penstock::penstock)
    penstock_warnings(${target})
endfunction()

function(penstock_internal_executable target)
    add_executable(${target} ${ARGN})
    penstock_internal(${target})
endfunction()
