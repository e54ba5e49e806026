# Precompiled headers, read once in a build tree and not once for each source. Only with
# PENSTOCK_PRECOMPILE. Every source still includes what it uses: clang-tidy, the release tree and
# the wheel see the sources alone.

# Standard headers only: they are the same in every tree, so that ccache shares the result.
set(PENSTOCK_COMMON_HEADERS
    <algorithm> <array> <atomic> <chrono> <cstddef> <cstdint> <cstring> <functional> <map> <memory> <mutex>
    <optional> <span> <string> <string_view> <system_error> <thread> <utility> <vector>)

# penstock_precompile(TARGET HEADER...): one precompiled header for all sources of this target.
function(penstock_precompile target)
    if(PENSTOCK_PRECOMPILE)
        target_precompile_headers(${target} PRIVATE ${ARGN})
        penstock_let_ccache_see(${target})
    endif()
endfunction()

# The same for a target that is optimized. Not with GCC where warnings are errors: it loses track of
# system headers, and warns of the standard library inlined into this code.
function(penstock_precompile_optimized target)
    if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU" OR NOT PENSTOCK_WERROR)
        penstock_precompile(${target} ${ARGN})
    endif()
endfunction()

# penstock_reuse_precompiled(TARGET OTHER): the precompiled header of another target with the same
# flags.
function(penstock_reuse_precompiled target other)
    if(PENSTOCK_PRECOMPILE)
        target_precompile_headers(${target} REUSE_FROM ${other})
        penstock_let_ccache_see(${target})
    endif()
endfunction()

# Required by ccache: the header's name in the preprocessed text, and no time stamps in the header.
function(penstock_let_ccache_see target)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        target_compile_options(${target} PRIVATE -fpch-preprocess)
    else()
        target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
    endif()
endfunction()
