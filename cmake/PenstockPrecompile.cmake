# Precompiled headers: what the sources of one kind include, read once in a build tree and not once a source.
# Only where PENSTOCK_PRECOMPILE is on. Each source includes all the same what it uses: the trees without
# (clang, release) and clang-tidy see the sources alone.

# Standard headers only: they are the same in every tree, so that ccache takes the result from another one.
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

# penstock_reuse_precompiled(TARGET OTHER): that of another target, which is compiled with the same flags.
function(penstock_reuse_precompiled target other)
    if(PENSTOCK_PRECOMPILE)
        target_precompile_headers(${target} REUSE_FROM ${other})
        penstock_let_ccache_see(${target})
    endif()
endfunction()

# What ccache asks for: it has to find the header's name in preprocessed text, and no time of day in the header.
function(penstock_let_ccache_see target)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        target_compile_options(${target} PRIVATE -fpch-preprocess)
    else()
        target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
    endif()
endfunction()
